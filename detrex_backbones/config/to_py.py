"""to_py: a config as Python text."""

from __future__ import annotations

import ast
import importlib
import keyword
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detrex_backbones.config._notes import short_repr
from detrex_backbones.config.by_name import OBJECT_NAMED
from detrex_backbones.config.nodes import is_call, to_plain
from detrex_backbones.config.targets import dotted_name, is_dotted_name
from detrex_backbones.config.values import escaped, quoted, written_leaf
from detrex_backbones.errors import ConfigValueError
from detrex_backbones.text import visible

__all__ = ["to_py"]


def to_py(cfg: Any, prefix: str = "cfg.") -> str:
    """The config as text to read: one assignment a line, keys in order, calls as calls, interpolations resolved.

        cfg.model = torch.nn.Conv2d(in_channels=3, kernel_size=7, out_channels=64)
        cfg.train.lr = 0.1

    It is formatted by black where that is installed. Each value, given back as an override, is the same value; what has
    no text in Python, such as a tensor, stands there as a string of its repr. The text is parsed again, and is Python
    that means the config and nothing else, whatever its strings, keys and targets are.

    Args:
        cfg: a config or any part of one.
        prefix: what the keys are put behind: dotted words and a dot, or "".

    Raises:
        ConfigValueError: the prefix is none.

    The behaviour is detectron2's `LazyConfig.to_py`.
    """
    if prefix and not (prefix.endswith(".") and _is_target(prefix[:-1])):
        raise ConfigValueError(f"prefix is dotted words and a dot, such as 'cfg.', or '', not {prefix!r:.100}.")
    base = prefix.removesuffix(".")
    found = _assignments(to_plain(cfg))
    text = "".join(" = ".join(filter(None, (_place(base, keys), _expression(value)))) + "\n" for keys, value in found)
    meant = ast.Module([_statement(base, keys, value) for keys, value in found], type_ignores=[])
    if _parsed(text) != ast.dump(meant):
        raise ConfigValueError("This config can't be written as Python that means the same. Use LazyConfig.to_yaml.")
    try:
        black: Any = importlib.import_module("black")
    except ImportError:
        return text
    formatted = str(black.format_str(text, mode=black.Mode()))
    return formatted if _parsed(formatted) == _parsed(text) else text


def _parsed(text: str) -> str:
    return ast.dump(ast.parse(text))


def _is_name(key: object) -> bool:
    return isinstance(key, str) and "." not in key and _is_target(key)


def _is_target(text: str) -> bool:
    return is_dotted_name(text) and not any(keyword.iskeyword(word) or word == "__debug__" for word in text.split("."))


def _assignments(value: Any, keys: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    """The keys that lead to the value, and it; or that for each key below it where it is a dict with keys."""
    if not isinstance(value, Mapping) or is_call(value) or not value:
        return [(keys, value)]
    return [pair for key in sorted(value, key=str) for pair in _assignments(value[key], (*keys, key))]


def _place(base: str, keys: tuple[Any, ...]) -> str:
    """What is assigned to: `cfg.model`, `cfg["a b"]`; where nothing stands before the key, `model`, `vars()["a b"]`."""
    for key in keys:
        named = f"{base}.{key}" if base else str(key)
        base = named if _is_name(key) else f"{base or 'vars()'}[{_key(key)}]"
    return base


def _arguments(node: Mapping[Any, Any]) -> tuple[list[str], dict[Any, Any]]:
    """The keys of a call that can be written as keywords, in order, and what else it holds."""
    names = sorted((key for key in node if key != "_target_"), key=str)
    return [key for key in names if _is_name(key)], {key: node[key] for key in names if not _is_name(key)}


def _is_written_as_call(value: Any) -> bool:
    """Whether a mapping is a call that Python has words for: its target has a name, or is such a call."""
    target = value["_target_"] if is_call(value) else None
    if isinstance(target, str):
        return _is_target(target)
    return _is_written_as_call(target) if isinstance(target, Mapping) else target is not None


def _saved_name(value: Any) -> str | None:
    """The name of a class or function that was saved, which is written as it was before."""
    if is_call(value) and value["_target_"] == OBJECT_NAMED and set(value) == {"_target_", "_name_"}:
        name = value["_name_"]
        return name if isinstance(name, str) and _is_target(name) else None
    return None


def _expression(value: Any) -> str:
    if (name := _saved_name(value)) is not None:
        return name
    if _is_written_as_call(value):
        target = value["_target_"]
        names, others = _arguments(value)
        arguments = [f"{key}={_expression(value[key])}" for key in names]
        arguments += [f"**{_expression(others)}"] if others else []
        return f"{target if isinstance(target, str) else _expression(target)}({', '.join(arguments)})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)}: {_expression(value[key])}" for key in sorted(value, key=str)) + "}"
    if type(value) is list:
        return "[" + ", ".join(map(_expression, value)) + "]"
    if type(value) is tuple:
        return "(" + ", ".join(map(_expression, value)) + ("," if len(value) == 1 else "") + ")"
    return written_leaf(value) or dotted_name(value) or quoted(_shown(value))


def _key(key: Any) -> str:
    return quoted(key) if type(key) is str else _expression(key)  # in which nothing is an interpolation


def _shown(value: Any) -> str:
    return visible(short_repr(value))


# What the text is compared with: the same config as Python's parser would have it, built without any text of it.


def _statement(base: str, keys: tuple[Any, ...], value: Any) -> ast.stmt:
    place: Any = _path(base) if base else None
    for key in keys:
        if _is_name(key):
            place = ast.Attribute(place, key, ast.Load()) if place else ast.Name(key, ast.Load())
        else:
            place = ast.Subscript(place or ast.Call(_path("vars"), [], []), _key_meaning(key), ast.Load())
    if place is None:
        return ast.Expr(_meaning(value))
    place.ctx = ast.Store()
    return ast.Assign([place], _meaning(value))


def _key_meaning(key: Any) -> ast.expr:
    return ast.Constant(key) if type(key) is str else _meaning(key)


def _path(name: str) -> ast.expr:
    first, *rest = name.split(".")
    path: ast.expr = ast.Name(first, ast.Load())
    for word in rest:
        path = ast.Attribute(path, word, ast.Load())
    return path


def _meaning(value: Any) -> ast.expr:
    if (name := _saved_name(value)) is not None:
        return _path(name)
    if _is_written_as_call(value):
        target = value["_target_"]
        names, others = _arguments(value)
        keywords = [ast.keyword(key, _meaning(value[key])) for key in names]
        keywords += [ast.keyword(None, _meaning(others))] if others else []
        return ast.Call(_path(target) if isinstance(target, str) else _meaning(target), [], keywords)
    if isinstance(value, Mapping):
        keys = sorted(value, key=str)
        return ast.Dict([_key_meaning(key) for key in keys], [_meaning(value[key]) for key in keys])
    if type(value) in (list, tuple):
        items = [_meaning(item) for item in value]
        return ast.List(items, ast.Load()) if type(value) is list else ast.Tuple(items, ast.Load())
    if isinstance(value, Path):
        return ast.Call(_path("pathlib.Path"), [ast.Constant(str(value))], [])
    if type(value) is str:
        return ast.Constant(escaped(value))
    if written := written_leaf(value):
        return ast.parse(written, mode="eval").body  # a number, bytes or a word, in which nobody's text stands
    own = dotted_name(value)
    return _path(own) if own else ast.Constant(_shown(value))
