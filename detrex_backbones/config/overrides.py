"""Overrides: texts such as `model.backbone.depth=101` that change a config."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any, TypeVar

from omegaconf import DictConfig, ListConfig, Node, open_dict
from omegaconf.basecontainer import BaseContainer

from detrex_backbones.config.nodes import ALLOW_OBJECTS, adopt, clone, is_call
from detrex_backbones.config.signatures import unknown_argument
from detrex_backbones.config.targets import locate
from detrex_backbones.config.values import parse_value
from detrex_backbones.errors import ConfigTypeError, DetrexBackbonesError, OverrideError, closest

__all__ = ["apply_overrides"]

ConfigT = TypeVar("ConfigT")
_PART = re.compile(r"([^.\[\]\s]+)|\[([^\[\]]+)\]")
_KEY = re.compile(rf"({_PART.pattern})(\.[^.\[\]\s]+|\[[^\[\]]+\])*")


@dataclasses.dataclass(frozen=True)
class _Override:
    """One override: `+` adds without asking the target, `~` deletes, "" sets."""

    text: str
    mode: str
    path: tuple[str, ...]
    value: Any = None


def apply_overrides(cfg: ConfigT, overrides: Iterable[str]) -> ConfigT:
    """Change a config in place by overrides, and return it. If one of them is wrong, none is applied.

    `a.b=1` sets; a dict is merged into the one that is there; new keys of plain dicts may be set. `a.0.x=1` and
    `a[0].x=1` reach into lists and tuples. `+a.b=1` sets also what a target's signature doesn't take or a struct
    doesn't have; `~a.b` deletes. For the values see `detrex_backbones.config.values.parse_value`.

    A new key in a node with `_target_` must be an argument of that target, where its signature can be read (a dotted
    name is imported for that) and has no `**kwargs`.

    Args:
        cfg: a DictConfig or ListConfig.
        overrides: the texts, applied in order.

    Raises:
        OverrideError: an override that can't be read, or doesn't fit the config; it names what would.
        ConfigTypeError: `cfg` is no config, or `overrides` is a single string.

    The grammar is that of detectron2's `LazyConfig.apply_overrides`, which is Hydra's, without sweeps.
    """
    if not isinstance(cfg, BaseContainer):
        raise ConfigTypeError(f"apply_overrides changes a DictConfig or ListConfig, not a {type(cfg).__name__}.")
    if isinstance(overrides, str):
        raise ConfigTypeError(f"overrides is a list of texts; write [{overrides!r}] for one.")
    parsed = [_parse(text) for text in overrides]
    # A rehearsal on a copy of the structure: later overrides may depend on earlier ones, and all must fit.
    for target in (_twin(cfg), cfg):
        for override in parsed:
            _apply(target, override)
    return cfg


def _twin(cfg: Any) -> Any:
    """The counterpart of `cfg` in a copy of the whole config, as interpolations may lead out of it."""
    parent = cfg._get_parent()
    if parent is None:
        return clone(cfg)
    content = vars(_twin(parent))["_content"]
    return content if isinstance(content, Node) else content[cfg._key()]


def _parse(text: str) -> _Override:
    if not isinstance(text, str):
        raise OverrideError(f"An override is a text such as 'a.b=1', not {text!r} of type {type(text).__name__}.")
    mode = text[:1] if text[:1] in ("+", "~") else ""
    name, equals, value = text[len(mode) :].partition("=")
    if mode == "~" and equals:
        raise OverrideError(f"The override {text!r} deletes and takes no value; write '~{name.strip()}'.")
    if mode != "~" and not equals:
        raise OverrideError(f"The override {text!r} has no '='; write 'key=value', or '~key' to delete.")
    name = name.removeprefix("+").strip()
    if not _KEY.fullmatch(name):
        raise OverrideError(f"The override {text!r} has no key that can be read; write 'a.b=1' or 'a[0].b=1'.")
    path = tuple(part or bracketed for part, bracketed in _PART.findall(name))
    try:
        return _Override(text, mode, path, parse_value(value))
    except (ValueError, RecursionError) as error:
        raise OverrideError(f"The override {text!r:.200} has a value that can't be read: {error}.") from error


def _apply(cfg: Any, override: _Override) -> None:
    try:
        node = cfg
        for end, name in enumerate(override.path[:-1], start=1):
            node = _enter(node, name, override, end)
        if override.mode == "~":
            _delete(node, override.path[-1], override)
        else:
            _set(node, _key(node, override.path[-1], override), override.value, override)
    except DetrexBackbonesError:
        raise
    except Exception as error:  # omegaconf's: a read-only config, a struct, a value of the wrong type
        raise OverrideError(f"The override {override.text!r} doesn't fit: {error}") from error


def _key(node: Any, name: str, override: _Override) -> Any:
    """The key or index that `name` is in this node."""
    if isinstance(node, DictConfig):
        number = int(name) if re.fullmatch(r"-?[0-9]+", name) else None
        return number if number in node.keys() and name not in node.keys() else name  # noqa: SIM118
    place = node._get_full_key(None) or "the config"
    if not re.fullmatch(r"-?[0-9]+", name):
        raise OverrideError(f"The override {override.text!r} needs an index, not {name!r}: {place} is a list.")
    if not -len(node) <= int(name) < len(node):
        raise OverrideError(
            f"The override {override.text!r} has no item {name} to change: {place} has {len(node)} items."
        )
    return int(name) % len(node)


def _enter(node: Any, name: str, override: _Override, end: int) -> Any:
    """The container that the first `end` parts of the path lead to, made where a dict may have it."""
    key = _key(node, name, override)
    if isinstance(node, DictConfig) and _is_empty(node, key):
        if override.mode == "~":
            raise _no_such_key(node, key, override)
        _check_argument(node, key, override)
        _put(node, key, {}, override)
    inner = node[key]
    if not isinstance(inner, BaseContainer):
        raise OverrideError(
            f"The override {override.text!r} looks for {'.'.join(override.path[end:])!r} inside "
            f"{node._get_full_key(key)}, which is no dict or list but {inner!r:.60} of type {type(inner).__name__}."
        )
    return inner


def _is_empty(node: DictConfig, key: Any) -> bool:
    child = node._get_node(key, validate_access=False)
    return child is None or child._is_none() or child._is_missing()


def _set(node: Any, key: Any, value: Any, override: _Override) -> None:
    """Set one key; a dict is merged in key by key, so that each is checked."""
    if isinstance(node, DictConfig):
        _check_argument(node, key, override)
    if key == "_target_" and not (isinstance(value, (str, dict)) and value):
        raise OverrideError(f"The override {override.text!r} sets {node._get_full_key(key)}, which is a dotted name.")
    if not isinstance(value, dict) or not isinstance(node, DictConfig):
        _put(node, key, value, override)
        return
    if _is_empty(node, key) or not isinstance(node[key], DictConfig):
        _put(node, key, {}, override)
    inner = node[key]
    for inner_key in sorted(value, key=lambda name: name != "_target_"):  # whose arguments the others are
        _set(inner, inner_key, value[inner_key], override)


def _check_argument(node: DictConfig, key: Any, override: _Override) -> None:
    """Refuse a new key that the target of the node doesn't take as an argument.

    One that is there already isn't a slip of this override's; whoever wrote it was warned.
    """
    if override.mode == "+" or key in node.keys() or not is_call(node):  # noqa: SIM118
        return
    problem = unknown_argument(_known_target(node), key)
    if problem:
        raise OverrideError(
            f"The override {override.text!r} sets {node._get_full_key(key)}, but {problem} "
            f"Write '+{override.text}' to set it all the same."
        )


def _known_target(node: DictConfig) -> Any:
    """The target of a node, or None where that isn't known before it is called."""
    try:
        target = node["_target_"]
        return locate(target) if isinstance(target, str) else target
    except Exception:  # not there yet, or not on this machine: instantiate says so when it matters
        return None


def _put(node: Any, key: Any, value: Any, override: _Override) -> None:
    if isinstance(node, DictConfig) and override.mode == "+":
        with open_dict(node):
            node[key] = value
    elif isinstance(node, (DictConfig, ListConfig)):
        node[key] = value
    else:  # TupleConfig, which refuses every change
        _refuse_read_only(node, override)
        adopt(node, key, ListConfig([value], flags=dict(ALLOW_OBJECTS))._get_node(0))  # type: ignore[arg-type]


def _delete(node: Any, name: str, override: _Override) -> None:
    key = _key(node, name, override)
    if isinstance(node, DictConfig):
        if key not in node.keys():  # noqa: SIM118
            raise _no_such_key(node, key, override)
        with open_dict(node):
            del node[key]
    elif isinstance(node, ListConfig):
        del node[key]
    else:
        _refuse_read_only(node, override)
        content = vars(node)["_content"]
        del content[key]
        for index, child in enumerate(content):
            child._set_key(index)


def _refuse_read_only(node: Any, override: _Override) -> None:
    if node._get_flag("readonly"):
        raise OverrideError(f"The override {override.text!r} doesn't fit: {node._get_full_key(None)} is read-only.")


def _no_such_key(node: DictConfig, key: Any, override: _Override) -> OverrideError:
    names = [str(name) for name in node]
    return OverrideError(
        f"The override {override.text!r} deletes {node._get_full_key(key)}, which isn't there.{closest(key, names)} "
        f"There is: {', '.join(names) or 'nothing'}."
    )
