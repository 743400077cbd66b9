"""LazyCall: a call written down instead of made."""

from __future__ import annotations

import dataclasses
import functools
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, overload

from omegaconf import DictConfig
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import OmegaConfBaseException

from detrex_backbones.config.nodes import ALLOW_OBJECTS, adopt, clone, set_made_at
from detrex_backbones.config.signatures import unknown_argument
from detrex_backbones.config.targets import describe, dotted_name, lookup
from detrex_backbones.errors import ConfigTypeError

__all__ = ["LazyCall"]

Target = Callable[..., Any] | str | Mapping[Any, Any]
"""What a config can call."""

P = ParamSpec("P")


# An editor and a type checker see the target's own parameters. What comes back is Any to them, so that a node can stand
# wherever the object that it makes is wanted, and any key of it can be set.
@overload
def LazyCall(target: type[dict[Any, Any]]) -> Callable[..., Any]: ...
@overload
def LazyCall(target: Callable[P, object]) -> Callable[P, Any]: ...
@overload
def LazyCall(target: str | Mapping[Any, Any]) -> Callable[..., Any]: ...
def LazyCall(target: Target) -> Callable[..., Any]:  # noqa: N802  (detectron2's name, which configs import)
    """Write a call down as a config node; `instantiate` makes it later.

        conv = LazyCall(nn.Conv2d)(in_channels=3, out_channels=64, kernel_size=7)
        conv.out_channels = 32
        layer = instantiate(conv)

    A node given as an argument is copied, with its structure but not the objects it holds: later edits of the
    original don't show. A keyword that the target doesn't take is warned about at the line where it is written. That
    line is also what `instantiate` names when the call fails.

    Editors complete the target's parameters, and type checkers check them: `MISSING` of omegaconf stands for what comes
    later, and `SI("${..key}")` for what stands elsewhere in the config.

    Args:
        target: a callable, its dotted name, or a node that makes a callable.

    Returns:
        A function that takes the keyword arguments of the call and returns the node: a `DictConfig` that may hold
        any object, with the target as `_target_` (for a dataclass, which omegaconf can't hold, its dotted name).

    Raises:
        ConfigTypeError: `target` is none of those, arguments are given without their names, or one is no config value.

    The behaviour is detectron2's `LazyCall`.
    """
    if not (callable(target) or isinstance(target, (str, Mapping))):
        raise ConfigTypeError(
            f"LazyCall takes a callable, a dotted name or a config node, not {target!r}, a {type(target).__name__}."
        )
    stored = _storable(target)

    # Prompts and notebooks show and complete the target's own parameters.
    @functools.wraps(target, assigned=("__doc__",), updated=())  # type: ignore[arg-type]
    def call(*args: Any, **kwargs: Any) -> DictConfig:
        if args:
            raise ConfigTypeError(
                f"LazyCall({describe(target)}) takes keyword arguments only; {len(args)} came without a name. "
                "Write each as name=value."
            )
        frame = sys._getframe(1)
        known = lookup(target) if isinstance(target, str) else target
        for name in kwargs:
            problem = None if name == "_target_" else unknown_argument(known, name)
            if problem:
                warnings.warn(problem, UserWarning, stacklevel=2)
        kwargs["_target_"] = stored
        try:
            node = _build(kwargs)
        except OmegaConfBaseException as error:
            raise ConfigTypeError(f"An argument of LazyCall({describe(stored)}) fits no config: {error}") from error
        set_made_at(node, f"{frame.f_code.co_filename}:{frame.f_lineno}")
        return node

    return call


def _storable(target: Target) -> Target:
    """The target in a form that omegaconf keeps: it takes a dataclass for a structured config, and refuses dict."""
    if target is dict or target is OrderedDict:
        return dotted_name(target) or target
    if (
        dataclasses.is_dataclass(target)
        or hasattr(type(target), "__attrs_attrs__")
        or hasattr(target, "__attrs_attrs__")
    ):
        if isinstance(target, type):
            return dotted_name(target) or functools.partial(target)
        return target.__call__  # type: ignore[no-any-return, operator]
    return target


def _build(arguments: dict[str, Any]) -> DictConfig:
    """A node of these arguments, in which nodes among them are put as copies that share the objects they hold."""
    found: list[tuple[tuple[Any, ...], Any]] = []
    content = {"_target_": None, **_without_nodes(arguments, (), found)}
    node = DictConfig(content, flags=dict(ALLOW_OBJECTS))
    for path, child in found:
        parent: Any = node
        for key in path[:-1]:
            parent = vars(parent)["_content"][key]
        adopt(parent, path[-1], clone(child))
    return node


def _without_nodes(value: Any, path: tuple[Any, ...], found: list[Any]) -> Any:
    """The value with None in the place of each node in it, and the nodes with their paths added to `found`."""
    if isinstance(value, BaseContainer):
        found.append((path, value))
        return None
    if type(value) is dict:
        return {key: _without_nodes(inner, (*path, key), found) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)([_without_nodes(inner, (*path, index), found) for index, inner in enumerate(value)])
    return value
