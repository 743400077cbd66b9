"""Overrides: texts such as `model.backbone.depth=101` that change a config."""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Iterable
from typing import Any, TypeVar

from omegaconf import DictConfig, ListConfig, Node, open_dict
from omegaconf.basecontainer import BaseContainer

from detrex_backbones.config.fitted_value import fitted, place_of
from detrex_backbones.config.new_keys import objection_to_key, objection_to_value
from detrex_backbones.config.nodes import ALLOW_OBJECTS, adopt, clone
from detrex_backbones.config.to_py import key_text
from detrex_backbones.config.values import parse_value
from detrex_backbones.errors import ConfigTypeError, DetrexBackbonesError, OverrideError, closest
from detrex_backbones.text import counted, visible

__all__ = ["apply_overrides"]

ConfigT = TypeVar("ConfigT")
_BRACKETED = r"""\[("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\[\]"'=][^\[\]=]*)\]"""
_PART = re.compile(rf"([^.\[\]\s=]+)|{_BRACKETED}")
_KEY = re.compile(rf"\s*(({_PART.pattern})(\.[^.\[\]\s=]+|{_BRACKETED})*)\s*(?==|$)", re.DOTALL)


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
    `a[0].x=1` reach into lists and tuples. `~a.b` deletes. For the values see
    `detrex_backbones.config.values.parse_value`; a list that takes the place of a tuple becomes one, and a dotted name
    that takes the place of a class or function is looked up.

    A new key in a node with `_target_` must be an argument of that target, where its signature can be read (a dotted
    name is imported for that) and has no `**kwargs`; one in `train` must be one that this library reads; and none may
    be within two letters of one that is there. `+a.b=1` sets it all the same, also in a struct. `train` itself, and
    `model`, are changed by their keys.

    A path that leads through an interpolation changes what stands at the path alone: a copy of what the interpolation
    points at takes its place first.

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
    for target in (_in_a_copy(cfg), cfg):
        for override in parsed:
            _apply(target, override)
    return cfg


def _in_a_copy(cfg: Any) -> Any:
    """The counterpart of `cfg` in a copy of the whole config, as interpolations may lead out of it."""
    parent = cfg._get_parent()
    if parent is None:
        return clone(cfg)
    content = vars(_in_a_copy(parent))["_content"]
    return content if isinstance(content, Node) else content[cfg._key()]


def _parse(text: str) -> _Override:
    if not isinstance(text, str):
        raise OverrideError(f"An override is a text such as 'a.b=1', not {text!r} of type {type(text).__name__}.")
    mode = text[:1] if text[:1] in ("+", "~") else ""
    rest = text[len(mode) :].removeprefix("+")
    found = _KEY.match(rest)
    name, equals, value = (found[1], *rest[found.end() :].partition("=")[1:]) if found else rest.partition("=")
    if mode == "~" and equals:
        raise OverrideError(f"The override {text!r} deletes and takes no value; write '~{name.strip()}'.")
    if mode != "~" and not equals:
        raise OverrideError(f"The override {text!r} has no '='; write 'key=value', or '~key' to delete.")
    if not found:
        raise OverrideError(f"The override {text!r} has no key that can be read; write 'a.b=1' or 'a[0].b=1'.")
    parts = [part or bracketed for part, bracketed in _PART.findall(name)]
    try:
        path = tuple(parse_value(part) if part[0] in "\"'" else part for part in parts)
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
            key = _key(node, override.path[-1], override)
            _check_key(node, key, override)
            _set(node, key, override.value, override)
    except DetrexBackbonesError:
        raise
    except Exception as error:  # omegaconf's: a read-only config, a struct, a value of the wrong type
        told = visible((str(error) or type(error).__name__).splitlines()[0])
        raise OverrideError(f"The override {override.text!r} doesn't fit: {told}") from error


def _key(node: Any, name: str, override: _Override) -> Any:
    """The key or index that `name` is in this node."""
    if isinstance(node, DictConfig):
        if name in node.keys():  # noqa: SIM118
            return name
        return next((key for key in node if key_text(key) == name), name)
    place = place_of(node) or "the config"
    if not re.fullmatch(r"-?[0-9]+", name):
        raise OverrideError(f"The override {override.text!r} needs an index, not {name!r}: {place} is a list.")
    if not -len(node) <= int(name) < len(node):
        raise OverrideError(
            f"The override {override.text!r} has no item {name} to change: {place} has {counted(len(node), 'item')}."
        )
    return int(name) % len(node)


def _enter(node: Any, name: str, override: _Override, end: int) -> Any:
    """The container that the first `end` parts of the path lead to, made where a dict may have it."""
    key = _key(node, name, override)
    if isinstance(node, DictConfig) and _is_empty(node, key):
        if override.mode == "~":
            raise _no_such_key(node, key, override)
        _check_key(node, key, override)
        _put(node, key, {}, override)
    _copy_what_is_referred_to(node, key, override)
    inner = node[key]
    if not isinstance(inner, BaseContainer):
        raise OverrideError(
            f"The override {override.text!r} looks for {'.'.join(override.path[end:])!r} inside "
            f"{place_of(node, key)}, which is no dict or list but {inner!r:.60} of type {type(inner).__name__}."
        )
    return inner


def _is_empty(node: DictConfig, key: Any) -> bool:
    child = node._get_node(key, validate_access=False)
    return child is None or child._is_none() or child._is_missing()


def _copy_what_is_referred_to(node: Any, key: Any, override: _Override) -> None:
    """Put a copy in the place of an interpolation to a dict or list, so that what it points at keeps its values."""
    child = node._get_node(key)
    if isinstance(child, Node) and child._is_interpolation() and isinstance(node[key], BaseContainer):
        _refuse_read_only(node, override)
        original = node[key]
        copied = clone(original)
        adopt(node, key, copied)
        _keep_values(original, copied)


def _keep_values(original: Any, copied: Any) -> None:
    """Where a relative interpolation means something else in the copy, put what it meant in its place."""
    for key in range(len(copied)) if not isinstance(copied, DictConfig) else list(copied.keys()):
        child = copied._get_node(key)
        if isinstance(child, BaseContainer) and not child._is_interpolation():
            if not child._is_none() and not child._is_missing():
                _keep_values(original._get_node(key), child)
        elif child._is_interpolation() and "${." in str(child._value()):
            meant = original._get_node(key)._maybe_dereference_node()
            if meant is not None and child._maybe_dereference_node() != meant:
                adopt(copied, key, clone(meant))


def _set(node: Any, key: Any, value: Any, override: _Override) -> None:
    """Set one key; a dict is merged in key by key, so that each is checked."""
    if isinstance(node, DictConfig) and override.mode != "+" and (problem := objection_to_value(node, key, value)):
        raise OverrideError(f"The override {override.text!r} replaces {place_of(node, key)}, but {problem}")
    if key == "_target_" and not (isinstance(value, (str, dict)) and value):
        raise OverrideError(f"The override {override.text!r} sets {place_of(node, key)}, which is a dotted name.")
    if not isinstance(value, dict) or not isinstance(node, DictConfig):
        _put(node, key, fitted(node, key, value, override.text), override)
        return
    if _is_empty(node, key):
        _put(node, key, {}, override)
    _copy_what_is_referred_to(node, key, override)
    if not isinstance(node[key], DictConfig):
        _put(node, key, {}, override)
    inner = node[key]
    if "_target_" in value:  # whose arguments the others are
        _set(inner, "_target_", value["_target_"], override)
    named = {key_text(inner_key): inner_key for inner_key in inner if isinstance(inner_key, enum.Enum)}
    others = {named.get(inner_key, inner_key): item for inner_key, item in value.items() if inner_key != "_target_"}
    for inner_key in others:  # before any is set, as they are no slips of each other
        _check_key(inner, inner_key, override)
    for inner_key in others:
        _set(inner, inner_key, others[inner_key], override)


def _check_key(node: Any, key: Any, override: _Override) -> None:
    """Refuse a new key that is probably a slip.

    One that is there already isn't a slip of this override's; whoever wrote it was warned.
    """
    if not isinstance(node, DictConfig) or override.mode == "+" or key in node.keys():  # noqa: SIM118
        return
    problem = objection_to_key(node, key)
    if problem:
        raise OverrideError(
            f"The override {override.text!r} sets {place_of(node, key)}, but {problem} "
            f"Write '+{override.text}' to set it anyway."
        )


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
        raise OverrideError(f"The override {override.text!r} doesn't fit: {place_of(node)} is read-only.")


def _no_such_key(node: DictConfig, key: Any, override: _Override) -> OverrideError:
    names = [visible(name) for name in node]
    return OverrideError(
        f"The override {override.text!r} deletes {place_of(node, key)}, which isn't there.{closest(key, names)} "
        f"There is: {', '.join(names) or 'nothing'}."
    )
