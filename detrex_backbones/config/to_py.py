"""to_py: a config as Python text."""

from __future__ import annotations

import ast
import functools
import importlib
import keyword
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detrex_backbones.config._notes import short_repr
from detrex_backbones.config.by_name import OBJECT_NAMED
from detrex_backbones.config.lambda_text import lambda_text
from detrex_backbones.config.nodes import is_call, to_plain
from detrex_backbones.config.targets import dotted_name, is_dotted_name
from detrex_backbones.config.values import escaped, quoted, written_leaf
from detrex_backbones.errors import ConfigValueError
from detrex_backbones.text import visible

__all__ = ["key_text", "to_py"]


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
    statements = [_statement(prefix.removesuffix("."), keys, value) for keys, value in _assignments(to_plain(cfg))]
    text = "".join(f"{line}\n" for line, _ in statements)
    if _parsed(text) != ast.dump(ast.Module([meant for _, meant in statements], type_ignores=[])):
        raise ConfigValueError("This config can't be written as Python with the same meaning. Use LazyConfig.to_yaml.")
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


def _partial_of(value: Any) -> tuple[str, tuple[Any, ...], dict[str, Any]] | None:
    """Function's name, arguments and keywords of a `functools.partial`, as it is or as it was saved."""
    if type(value) is functools.partial:
        name, given, keywords = dotted_name(value.func), value.args, value.keywords
    elif is_call(value) and value["_target_"] == OBJECT_NAMED and _is_target(str(value.get("_name_", ""))):
        name, given = value["_name_"], tuple(value.get("_args_", ()))
        keywords = {key: item for key, item in value.items() if key not in ("_target_", "_name_", "_args_")}
    else:
        return None
    return (name, given, keywords) if name and all(map(_is_name, keywords)) else None


# Each of these gives a text, and what it is to mean: the tree that Python's parser must make of it, built without it.


def _statement(base: str, keys: tuple[Any, ...], value: Any) -> tuple[str, ast.stmt]:
    """An assignment to `cfg.model` or `cfg["a b"]`; where nothing stands before it, to `model` or `vars()["a b"]`."""
    text, tree = _expression(value)
    place: Any = _path(base) if base else None
    for key in keys:
        if _is_name(key):
            base = f"{base}.{key}" if base else key
            place = ast.Attribute(place, key, ast.Load()) if place else ast.Name(key, ast.Load())
        else:
            inside, index = _key(key)
            base = f"{base or 'vars()'}[{inside}]"
            place = ast.Subscript(place or ast.Call(_path("vars"), [], []), index, ast.Load())
    if place is None:
        return text, ast.Expr(tree)
    place.ctx = ast.Store()
    return f"{base} = {text}", ast.Assign([place], tree)


def _expression(value: Any) -> tuple[str, ast.expr]:
    if (name := _saved_name(value)) is not None:
        return name, _path(name)
    if (found := _partial_of(value)) is not None:
        return _partial(*found)
    if (text := lambda_text(value)) is not None:
        return text, ast.parse(text, mode="eval").body
    if _is_written_as_call(value):
        return _call(value)
    if isinstance(value, Mapping):
        keys = sorted(value, key=str)
        pairs = [(_key(key), _expression(value[key])) for key in keys]
        text = ", ".join(f"{key}: {inner}" for (key, _), (inner, _) in pairs)
        return f"{{{text}}}", ast.Dict([key for (_, key), _ in pairs], [inner for _, (_, inner) in pairs])
    if type(value) in (list, tuple):
        items = [_expression(item) for item in value]
        text, trees = ", ".join(text for text, _ in items), [tree for _, tree in items]
        if type(value) is list:
            return f"[{text}]", ast.List(trees, ast.Load())
        return f"({text}{',' if len(items) == 1 else ''})", ast.Tuple(trees, ast.Load())
    return _leaf(value)


def _call(node: Mapping[Any, Any]) -> tuple[str, ast.expr]:
    target = node["_target_"]
    function, tree = (target, _path(target)) if isinstance(target, str) else _expression(target)
    names = sorted((key for key in node if key != "_target_"), key=str)
    others = {key: node[key] for key in names if not _is_name(key)}
    written = [(f"{key}=", key, _expression(node[key])) for key in names if _is_name(key)]
    written += [("**", None, _expression(others))] if others else []
    text = ", ".join(f"{start}{inner}" for start, _, (inner, _) in written)
    return f"{function}({text})", ast.Call(tree, [], [ast.keyword(key, inner) for _, key, (_, inner) in written])


def _partial(name: str, given: tuple[Any, ...], keywords: Mapping[str, Any]) -> tuple[str, ast.expr]:
    items = [(name, _path(name)), *map(_expression, given)]
    written = [(key, _expression(keywords[key])) for key in sorted(keywords)]
    text = ", ".join([*(text for text, _ in items), *(f"{key}={text}" for key, (text, _) in written)])
    trees = [ast.keyword(key, tree) for key, (_, tree) in written]
    return f"functools.partial({text})", ast.Call(_path("functools.partial"), [tree for _, tree in items], trees)


def _leaf(value: Any) -> tuple[str, ast.expr]:
    text = written_leaf(value)
    if type(value) is str:
        return str(text), ast.Constant(escaped(value))
    if isinstance(value, Path):
        return str(text), ast.Call(_path("pathlib.Path"), [ast.Constant(str(value))], [])
    if text is not None:  # a number, bytes or a word of Python's, in which nobody's text stands
        return text, ast.parse(text, mode="eval").body
    if (name := dotted_name(value)) is not None:
        return name, _path(name)
    shown = visible(short_repr(value))
    return quoted(shown), ast.Constant(shown)


def _key(key: Any) -> tuple[str, ast.expr]:
    return (quoted(key), ast.Constant(key)) if type(key) is str else _leaf(key)  # no interpolation stands in a key


def key_text(key: Any) -> str:
    """A key of a dict as `to_py` writes it."""
    return _key(key)[0]


def _path(name: str) -> ast.expr:
    first, *rest = name.split(".")
    path: ast.expr = ast.Name(first, ast.Load())
    for word in rest:
        path = ast.Attribute(path, word, ast.Load())
    return path
