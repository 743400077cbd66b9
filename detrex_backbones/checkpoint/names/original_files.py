"""Files in the names of a network's authors, read by the network itself.

A backbone that knows how its authors' files are read says so by `from_original(tensors)`: timm's networks do, by the
filter that timm has for each family. It is asked twice: with tensors that have no memory, for names and shapes, and
with the file's values when these are loaded.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from detrex_backbones.checkpoint.entry import Entry, Status
from detrex_backbones.checkpoint.read import LazyTensor
from detrex_backbones.checkpoint.read.stored import Views

__all__ = [
    "ORIGINAL",
    "FilteredTensor",
    "FromOriginal",
    "original_entries",
    "original_prefixes",
    "read_as_authors",
]

logger = logging.getLogger(__name__)

ORIGINAL = "original"
CHANGED = "changed as its family's reader does"

FromOriginal = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]
"""From tensors in the authors' names to those in the network's own, with or without a classifier."""


def original_prefixes(names: Mapping[str, object], count: int) -> Iterator[str]:
    """The prefixes behind which there may be a network, the shortest first.

    Args:
        names: of the file, cleaned.
        count: tensors that the network has: behind a prefix there are half as many at least, and all of them where it
            ends with a number (`backbone.0.`), as blocks of a network do.
    """
    heads = Counter(name[: at + 1] for name in names for at, letter in enumerate(name) if letter == ".")
    yield ""
    for head, held in heads.items():
        if held >= count or (2 * held >= count and not head[:-1].rpartition(".")[2].isdigit()):
            yield head


def original_entries(
    tensors: Mapping[str, LazyTensor],
    cleaned: Mapping[str, str],
    prefix: str,
    read: FromOriginal,
    by_order: bool = False,
) -> list[Entry] | None:
    """Every tensor of the file with the name that the network gives it, and those that it makes of several.

    Args:
        tensors: name in the file -> tensor.
        cleaned: clean name -> name in the file.
        prefix: what stands before the network's names.
        read: of the network.
        by_order: as of `read_as_authors`.

    Returns:
        None where it isn't a file that the network can read.
    """
    entries = {name: Entry(key, tensors[key], tensors[key].shape, name) for name, key in cleaned.items()}
    inside = {name.removeprefix(prefix): entry for name, entry in entries.items() if name.startswith(prefix)}
    more = read_as_authors(inside, read, by_order)
    if more is None:
        return None
    for name, entry in entries.items():
        if not name.startswith(prefix):
            entry.set(Status.OUTSIDE, f"outside {prefix.rstrip('.')!r}")
    for theirs, entry in inside.items():
        entry.theirs = theirs
    return [*entries.values(), *more]


def read_as_authors(inside: Mapping[str, Entry], read: FromOriginal, by_order: bool = False) -> list[Entry] | None:
    """Give tensors that have their authors' names those of the network in hand.

    Args:
        inside: the authors' name -> tensor of the file; each is given its name and, where it changes, its values.
        read: of the network.
        by_order: whether its reader may go by the order of the tensors, whatever their names are (timm's of NextViT).

    Returns:
        Those that the network makes of several, or of none; None where it can't read these names: nothing is changed.
    """
    traced = {theirs: _Traced.of(theirs, entry.values) for theirs, entry in inside.items()}
    try:
        made = {name: value for name, value in read(dict(traced)).items() if isinstance(value, Tensor)}
        if not by_order and _origins(made) != _origins(read(dict(reversed(traced.items())))):
            logger.debug("the reader of the network's family goes by the order of a file's tensors, not by their names")
            return None
    except Exception as error:  # whatever a filter does with names that it doesn't know
        logger.debug("not a file of the network's authors: %s: %s", type(error).__name__, error)
        return None
    run = _Run(read, {theirs: entry.values for theirs, entry in inside.items()})
    for entry in inside.values():
        entry.ours = ""
        entry.set(Status.NO_NAME, "left out by the reader of its family")
    return [new for name, value in made.items() if (new := _place(name, value, inside, traced, run)) is not None]


def _origins(made: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Which tensors of the file each of the network's is made of."""
    return {name: getattr(value, "origins", frozenset()) for name, value in made.items() if isinstance(value, Tensor)}


def _place(
    name: str, value: Tensor, inside: Mapping[str, Entry], traced: Mapping[str, Tensor], run: _Run
) -> Entry | None:
    """Give the tensor of the file that became `name` its name; a new entry where it is made of several, or of none."""
    origins: frozenset[str] = getattr(value, "origins", frozenset())
    for origin in origins:
        inside[origin].set(Status.PART_OF_ANOTHER, f"used in {name!r}")
    single = next(iter(origins)) if len(origins) == 1 else ""
    entry = inside[single] if single and not inside[single].ours else Entry(name, None, (), name, name)
    entry.ours = name
    if single and value is traced[single]:
        entry.tensor = inside[single].tensor
    else:
        stored = run.tensors[single] if single else None
        entry.tensor, entry.adapted = FilteredTensor(run, name, value, stored), CHANGED
    entry.shape = entry.values.shape
    entry.set(Status.NO_PLACE)
    return entry if entry.checkpoint_key == name and entry.clean == name and name not in inside else None


class _Traced(Tensor):
    """A tensor without memory that knows which tensors of the file it was made of."""

    origins: frozenset[str] = frozenset()

    @classmethod
    def of(cls, name: str, tensor: LazyTensor) -> _Traced:
        """One of the file."""
        made: _Traced = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta").as_subclass(cls)
        made.origins = frozenset([name])
        return made

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        args, kwargs = tree_map(_without_memory, (args, kwargs or {}))  # torch 2.6 takes no other beside them
        result = super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]
        given = [item for item in tree_leaves((args, kwargs)) if isinstance(item, _Traced)]
        origins: frozenset[str] = frozenset().union(*(item.origins for item in given))
        for item in tree_leaves(result):
            if isinstance(item, _Traced):
                item.origins |= origins
        return result


def _without_memory(value: Any) -> Any:
    return value.to("meta") if type(value) is Tensor and value.is_floating_point() else value


class _Run:
    """The reading of the file's values, once for all tensors that come of it.

    Args:
        read: of the network.
        tensors: of the file, behind the prefix.
    """

    def __init__(self, read: FromOriginal, tensors: Mapping[str, LazyTensor]) -> None:
        self._read, self.tensors = read, tensors
        self._views: Views | None = None
        self._made: Mapping[str, Tensor] = {}

    def value(self, name: str, views: Views) -> Tensor:
        """The tensor that the network calls `name`."""
        if self._views is not views:
            with torch.no_grad():
                self._made = self._read({theirs: tensor.build(views) for theirs, tensor in self.tensors.items()})
            self._views = views
        return self._made[name]


class FilteredTensor(LazyTensor):
    """What a network's reader makes of the file.

    Args:
        run: of the reader.
        name: that the network has for it.
        like: its shape and dtype.
        origin: the tensor of the file that it's made of; None where it is made of several.
    """

    def __init__(self, run: _Run, name: str, like: Tensor, origin: LazyTensor | None) -> None:
        super().__init__(like.shape, like.dtype)
        self._run, self._name, self.origin = run, name, origin
        self.unread = origin.unread if origin is not None else ""

    def pieces(self) -> Iterator[Any]:
        for tensor in self._run.tensors.values():
            yield from tensor.pieces()

    def build(self, views: Views) -> Tensor:
        return self._run.value(self._name, views)
