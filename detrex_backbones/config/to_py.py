"""to_py: a config as Python-like text."""

from __future__ import annotations

import importlib
import json
import keyword
from collections.abc import Mapping
from typing import Any

from detrex_backbones.config.nodes import is_call, to_plain
from detrex_backbones.config.targets import dotted_name

__all__ = ["to_py"]


def to_py(cfg: Any, prefix: str = "cfg.") -> str:
    """The config as text to read: one assignment a line, keys in order, calls as calls, interpolations resolved.

        cfg.model = torch.nn.Conv2d(in_channels=3, kernel_size=7, out_channels=64)
        cfg.train.lr = 0.1

    It is formatted by black where that is installed.

    Args:
        cfg: a config or any part of one.
        prefix: what the keys are put behind.

    The behaviour is detectron2's `LazyConfig.to_py`.
    """
    text = "\n".join(_assignments(to_plain(cfg), prefix)) + "\n"
    try:
        black: Any = importlib.import_module("black")
    except ImportError:
        return text
    try:
        return str(black.format_str(text, mode=black.Mode()))
    except black.InvalidInput:  # the repr of some object is no Python
        return text


def _is_name(key: object) -> bool:
    return isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key)


def _assignments(value: Any, prefix: str) -> list[str]:
    """One line for the value, or one for each key below it where it is a dict with keys."""
    if not isinstance(value, Mapping) or is_call(value) or not value:
        return [f"{prefix.removesuffix('.')} = {_expression(value)}"]
    lines = []
    for key in sorted(value, key=str):
        place = f"{prefix}{key}" if _is_name(key) else f"{prefix.removesuffix('.')}[{_expression(key)}]"
        lines += _assignments(value[key], place + ".")
    return lines


def _expression(value: Any) -> str:
    if isinstance(value, Mapping):
        if is_call(value):
            return _call(value)
        return "{" + ", ".join(f"{_expression(key)}: {_expression(value[key])}" for key in sorted(value, key=str)) + "}"
    if type(value) is list:
        return "[" + ", ".join(map(_expression, value)) + "]"
    if type(value) is tuple:
        return "(" + ", ".join(map(_expression, value)) + ("," if len(value) == 1 else "") + ")"
    if type(value) is str:
        return json.dumps(value, ensure_ascii=False) if value.isprintable() else repr(value)
    return dotted_name(value) or repr(value)


def _call(node: Mapping[Any, Any]) -> str:
    target = node["_target_"]
    name = target if isinstance(target, str) else _expression(target)
    names = sorted((key for key in node if key != "_target_"), key=str)
    arguments = [f"{key}={_expression(node[key])}" for key in names if _is_name(key)]
    others = {key: node[key] for key in names if not _is_name(key)}
    if others:
        arguments.append(f"**{_expression(others)}")
    return f"{name}({', '.join(arguments)})"
