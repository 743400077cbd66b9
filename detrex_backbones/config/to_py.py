"""to_py: a config as Python-like text."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from detrex_backbones.config.nodes import is_call, to_plain
from detrex_backbones.config.targets import dotted_name
from detrex_backbones.python_text import Call, Name, Source, assignment, expression, is_dotted, is_name

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


def _assignments(value: Any, prefix: str) -> list[str]:
    """One line for the value, or one for each key below it where it is a dict with keys."""
    if not isinstance(value, Mapping) or is_call(value) or not value:
        return [assignment(prefix.removesuffix("."), _tree(value))]
    lines = []
    for key in sorted(value, key=str):
        place = f"{prefix}{key}" if is_name(key) else f"{prefix.removesuffix('.')}[{expression(_tree(key))}]"
        lines += _assignments(value[key], place + ".")
    return lines


def _tree(value: Any) -> Any:
    """The value in types of `python_text`: calls as calls, what can be imported by its name."""
    if isinstance(value, Mapping):
        names = sorted(value, key=str)
        target = value.get("_target_")
        if not is_call(value) or (isinstance(target, str) and not is_dotted(target)):  # which no call can be made of
            return {_tree(key): _tree(value[key]) for key in names}
        function = Name(target) if isinstance(target, str) else _tree(target)
        return Call(function, {key: _tree(value[key]) for key in names if key != "_target_"})
    if type(value) in (list, tuple):
        return type(value)(map(_tree, value))
    if value is None or type(value) in (bool, int, float, str):
        return value
    name = dotted_name(value)
    return Name(name) if name and is_dotted(name) else Source(name or repr(value))
