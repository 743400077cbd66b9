"""instantiate: make the calls that a config describes."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.basecontainer import BaseContainer

from detrex_backbones.config._notes import add_note
from detrex_backbones.config.allow import Allowlist
from detrex_backbones.config.nodes import (
    ALLOW_OBJECTS,
    SEQUENCES,
    is_call,
    made_at,
    path_text,
    peek,
    structured_type,
    to_plain,
)
from detrex_backbones.config.signatures import unknown_argument
from detrex_backbones.config.targets import describe, locate
from detrex_backbones.errors import InstantiateError
from detrex_backbones.text import visible

__all__ = ["instantiate", "target_of"]

LONGEST_NOTE = 10_000  # characters of a line
PLAIN = (str, int, float, type(None))  # most arguments, and quicker told apart than containers are


def instantiate(cfg: Any, *, allow: Iterable[str] | None = None, plain: bool = False, share: bool = False) -> Any:
    """Call every target in the config, the innermost first, and return what the outermost makes.

    A mapping with `_target_` is called with its other keys as keyword arguments; lists and tuples are searched; a
    node made from a dataclass becomes an instance of it; a mapping without `_target_` and any other value come back
    as the very same object. Nothing is copied. Interpolations resolve against the whole config that `cfg` is part
    of, and one that points at a node with `_target_` calls it again.

    Args:
        cfg: a node, list or tuple of a config, or any value.
        allow: dotted names of targets that may be called, and prefixes ending with "." for all below them; None for
            all. For configs from strangers: every target is checked, by the name it is given under and the one it
            was defined under, before the first is called.
        plain: give targets `list`, `dict` and `tuple` arguments instead of ListConfig and DictConfig. (Nodes with
            `_target_` in a mapping without one stay nodes.)
        share: make one object of a node, however many interpolations point at it.

    Raises:
        InstantiateError: a target isn't callable or not allowed, or a node contains itself.
        ConfigImportError: a target's dotted name leads nowhere.
        omegaconf.MissingMandatoryValue: an argument is still `???`.
        Exception: whatever a target raises, the same object, with a note: path, target, arguments, file and line.

    Where omegaconf keeps tuples (from 2.4), targets get tuples; with 2.3 they get the ListConfig that was kept.
    The behaviour is that of detectron2's `instantiate`.
    """
    builder = _Builder(None if allow is None else Allowlist(allow), plain, share)
    root = cfg._get_full_key(None) if isinstance(cfg, BaseContainer) else ""
    path = (None, root) if root else None
    if builder.allow is not None:
        builder.dry = True
        builder.build(cfg, path)
        builder = _Builder(builder.allow, plain, share)
    return builder.build(cfg, path)


def target_of(node: Mapping[Any, Any]) -> Callable[..., Any]:
    """The callable that a node's `_target_` names or is; a target that is itself a node is made first.

    Args:
        node: a mapping with `_target_`.

    Raises:
        InstantiateError: there is no `_target_`, or it isn't callable.
        ConfigImportError: its dotted name leads nowhere.
    """
    if not is_call(node):
        raise InstantiateError(f"There is no _target_ in this node; its keys are: {', '.join(map(str, node))}.")
    target = instantiate(node["_target_"])
    found = locate(target) if isinstance(target, str) else target
    if not callable(found):
        raise InstantiateError(f"The _target_ {target!r} is not callable but of type {type(found).__name__}.")
    return found  # type: ignore[no-any-return]


class _Builder:
    """One run of `instantiate`: its options, and what it has made so far.

    A dry run makes nothing and only checks which targets would be called.
    """

    def __init__(self, allow: Allowlist | None, plain: bool, share: bool) -> None:
        self.allow, self.plain, self.share = allow, plain, share
        self.dry = False
        self.active: set[int] = set()
        self.made: dict[int, tuple[Any, Any]] = {}  # node and object, which keeps the node and so its id alive
        self.explained: BaseException | None = None

    def build(self, value: Any, path: Any) -> Any:
        """What the value becomes; `path` is where it stands, as nested pairs (rendered only in messages)."""
        if isinstance(value, PLAIN):
            return value
        if isinstance(value, SEQUENCES):
            if value._is_none() or value._is_missing():
                return value
            return self.sequence(value, path)
        if type(value) in (list, tuple):
            items = [self.build(item, (path, index)) for index, item in enumerate(value)]
            if type(value) is tuple:
                return value if all(a is b for a, b in zip(items, value, strict=True)) else tuple(items)
            return items
        if structured_type(value) is not None:
            return self.structured(value, path)
        if is_call(value):
            return self.once(value, path)
        return to_plain(value, keep_calls=True) if self.plain else value

    def sequence(self, value: Any, path: Any) -> Any:
        items = [self.build(self.read(value, i, path), (path, i)) for i in range(len(value))]
        if not isinstance(value, ListConfig):
            return tuple(items)
        # A ListConfig would copy nodes, and with them the objects they hold, and cut their interpolations off.
        return items if self.plain else ListConfig([to_plain(item) for item in items], flags=dict(ALLOW_OBJECTS))

    def structured(self, value: DictConfig, path: Any) -> Any:
        kind = structured_type(value)
        self.permit(kind, None, value, path)
        if self.dry:
            return None
        try:
            return OmegaConf.to_object(value)
        except Exception as error:
            self.explain(error, value, path, f"{describe(kind)}({_short(value)})")
            raise

    def once(self, node: Any, path: Any) -> Any:
        """The call of a node, unless it is being made already or shared and made before."""
        if id(node) in self.active:
            raise self.refuse("This node contains itself through an interpolation", node, path)
        if self.share and id(node) in self.made:
            return self.made[id(node)][1]
        self.active.add(id(node))
        try:
            made = self.call(node, path)
        finally:
            self.active.discard(id(node))
        if self.share:
            self.made[id(node)] = (node, made)
        return made

    def call(self, node: Any, path: Any) -> Any:
        arguments = {}
        for key in node:  # no comprehension: before Python 3.12 each takes a frame of the recursion limit
            arguments[key] = self.build(self.read(node, key, path), (path, key))
        target = arguments.pop("_target_")
        if self.dry and target is None:  # what another node would make; looked at when it is there
            return None
        found = self.resolve(target, node, path)
        if self.dry:
            return None
        try:
            return found(**arguments)
        except Exception as error:
            shown = ", ".join(f"{key}={_short(value)}" for key, value in arguments.items())
            hints = [unknown_argument(found, key) for key in arguments] if isinstance(error, TypeError) else []
            self.explain(error, node, path, f"{describe(found)}({shown})", *filter(None, hints))
            raise

    def resolve(self, target: Any, node: Any, path: Any) -> Callable[..., Any]:
        """The callable, looked up by name if need be, and allowed."""
        name = target if isinstance(target, str) else None
        found = target
        if name is not None:
            if self.allow is not None and not self.allow.allows_name(name):
                raise self.refuse(f"The target {name} is not allowed; allowed: {self.allow}", node, path)
            try:
                found = locate(name)
            except Exception as error:
                self.explain(error, node, path, name)
                raise
        if not callable(found):
            kind = type(found).__name__
            raise self.refuse(
                f"The _target_ must be callable or name a callable; {target!r} is of type {kind}", node, path
            )
        self.permit(found, name, node, path)
        return found  # type: ignore[no-any-return]

    def permit(self, found: Any, name: str | None, node: Any, path: Any) -> None:
        if self.allow is not None and not self.allow.allows(found, name):
            shown = describe(found) if name is None else f"{name}, which is {describe(found)},"
            raise self.refuse(f"The target {shown} is not allowed; allowed: {self.allow}", node, path)

    def read(self, container: Any, key: Any, path: Any) -> Any:
        try:
            return peek(container, key)
        except Exception as error:
            self.explain(error, container, (path, key), "its value can't be read")
            raise

    def refuse(self, problem: str, node: Any, path: Any) -> InstantiateError:
        self.explained = InstantiateError(f"{problem} ({_where(node, path)}).")
        return self.explained

    def explain(self, error: BaseException, node: Any, path: Any, what: str, *hints: str | None) -> None:
        """Say on the error, once, which node it came from."""
        if error is not self.explained:
            self.explained = error
            parts = ["instantiate: " + _where(node, path) + ": " + what, *filter(None, hints)]
            add_note(error, "\n  ".join(visible(part, LONGEST_NOTE) for part in parts))


def _where(node: Any, path: Any) -> str:
    place = made_at(node)
    return f"at {path_text(path) or 'the top of the config'}" + (f", written at {place}" if place else "")


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 60
        self.maxlevel = 2

    def repr_instance(self, value: Any, level: int) -> str:
        text = super().repr_instance(value, level)
        return f"<{type(value).__name__}>" if "\n" in text else text  # a module prints all of its children


def _short(value: Any) -> str:
    """A short repr, one that never raises."""
    return _Short().repr(value)
