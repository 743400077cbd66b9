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

    def mark(item: Any, place: str) -> Any:
        if _is_mark(item):
            raise ValueError(f"it has {MARK!r} in a tuple, which only this library writes")
        if not isinstance(item, Tensor | LazyTensor) or isinstance(item, OtherTensor):
            return item
        while place in tensors:  # {"a.b": t, "a": {"b": u}}
            place += "'"
        tensors[place] = item
        return (MARK, place)

    return _Copy(mark).of(value, path), tensors


def put_in(structure: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `take_out` took apart."""
    return _Copy(lambda item, place: tensors[item[1]] if _is_mark(item) else item).of(structure, "")


def _is_mark(item: Any) -> bool:
    return isinstance(item, tuple) and item[:1] == (MARK,)


class _Copy:
    """Copies of containers with something else in the place of what they hold.

    What stands in several places is copied once, as a pickle has it: a few bytes can hold as many lists in one another
    as there are ways through them, and one that holds itself.

    Args:
        leaf: from what is no container, or is a mark, and its path to what stands there in the copy.
    """

    def __init__(self, leaf: Callable[[Any, str], Any]) -> None:
        self._leaf = leaf
        self._made: dict[int, Any] = {}

    def of(self, item: Any, place: str) -> Any:
        """The copy of what stands at a path."""
        if not isinstance(item, dict) and (type(item) not in (list, tuple) or _is_mark(item)):
            return self._leaf(item, place)
        if id(item) in self._made:
            return self._made[id(item)]
        inside = f"{place}." if place else ""
        made: Any
        if isinstance(item, dict):
            # Keeps the type: a scheduler's milestones are a Counter, whose own update() adds.
            made = self._made[id(item)] = copy.copy(item)
            dict.update(made, {key: self.of(value, f"{inside}{key}") for key, value in item.items()})
            return made
        if isinstance(item, list):
            made = self._made[id(item)] = []
            made.extend([self.of(value, f"{inside}{index}") for index, value in enumerate(item)])
            return made
        made = tuple([self.of(value, f"{inside}{index}") for index, value in enumerate(item)])
        return self._made.setdefault(id(item), made)
