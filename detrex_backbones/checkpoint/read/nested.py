"""Nested mappings and lists with tensors in them, as optimisers have: the tensors apart from what holds them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from detrex_backbones.checkpoint.read.stored import LazyTensor, OtherTensor

__all__ = ["put_in", "take_out"]

MARK = "detrex_backbones.tensor"  # a tuple of this and a name stands for a tensor


def take_out(value: Any, path: str = "") -> tuple[Any, dict[str, Any]]:
    """The same structure with marks in the place of its tensors, and the tensors by their dotted paths."""
    tensors: dict[str, Any] = {}
    return _marked(value, path, tensors), tensors


def put_in(structure: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `take_out` took apart."""
    if isinstance(structure, tuple) and len(structure) == 2 and structure[0] == MARK:
        return tensors[structure[1]]
    return _rebuilt(structure, lambda item, place: put_in(item, tensors), "")


# No closures that call themselves: these are cycles, and would keep tensors until they are collected.
def _marked(item: Any, place: str, tensors: dict[str, Any]) -> Any:
    if isinstance(item, Tensor | LazyTensor) and not isinstance(item, OtherTensor):
        name = place
        while name in tensors:  # {"a.b": t, "a": {"b": u}}
            name += "'"
        tensors[name] = item
        return (MARK, name)
    if isinstance(item, tuple) and item[:1] == (MARK,):
        raise ValueError(f"it has {MARK!r} in a tuple, which only this library writes")
    return _rebuilt(item, lambda inner, at: _marked(inner, at, tensors), place)


def _rebuilt(item: Any, walk: Callable[[Any, str], Any], place: str) -> Any:
    """A container of the same type with other contents; anything else as it is."""
    inside = f"{place}." if place else ""
    if isinstance(item, dict):
        made = copy.copy(item)  # keeps the type: a scheduler's milestones are a Counter, whose own update() adds
        dict.update(made, {key: walk(value, f"{inside}{key}") for key, value in item.items()})
        return made
    if type(item) in (list, tuple):
        return type(item)(walk(value, f"{inside}{index}") for index, value in enumerate(item))
    return item
