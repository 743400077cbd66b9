"""Folders of torch.distributed.checkpoint (DCP): a pickled table of contents, and files of pieces of tensors.

Source: what `torch.distributed.checkpoint.save` writes (metadata.py, filesystem.py), read as data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detrex_backbones.checkpoint.read.dtypes import DTYPES, whole_number
from detrex_backbones.checkpoint.read.nested import put_in
from detrex_backbones.checkpoint.read.pickle_data import parse_pickle
from detrex_backbones.checkpoint.read.rebuild import rebuild
from detrex_backbones.checkpoint.read.records import Call, Data, Name, PickleError
from detrex_backbones.checkpoint.read.several_files import file_in
from detrex_backbones.checkpoint.read.source import DamagedError, Piece, Source
from detrex_backbones.checkpoint.read.stored import LazyTensor, StoredTensor, Views
from detrex_backbones.checkpoint.read.torch_file import read_zip

__all__ = ["CONTENTS", "STRUCTURE", "PiecedTensor", "is_folder", "read_folder"]

CONTENTS = ".metadata"
STRUCTURE = "detrex_backbones.structure"  # the entry that holds everything but the tensors, where we wrote it
CLASSES = "torch.distributed.checkpoint."

Part = tuple[tuple[int, ...], StoredTensor]
"""Where a piece of a tensor begins in it, and the piece."""


def is_folder(path: Path) -> bool:
    """Whether this is a folder that torch.distributed.checkpoint wrote."""
    try:
        return (path / CONTENTS).is_file()
    except (OSError, ValueError):  # nobody may look, or a null character in the name
        return False


class PiecedTensor(LazyTensor):
    """A tensor of which several processes wrote a part each.

    Args:
        name: for messages.
        shape: of the whole.
        dtype: of its values.
        parts: where each begins, and the values.
    """

    def __init__(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, parts: list[Part]) -> None:
        super().__init__(shape, dtype)
        self._name, self._parts = name, parts
        for start, part in parts:
            inside = len(start) == len(part.shape) == len(shape) and all(
                begin + length <= size for begin, length, size in zip(start, part.shape, shape, strict=True)
            )
            if part.dtype != dtype or not inside:
                raise DamagedError(f"a piece of {name!r} lies outside it")
        stored = sum(prod(part.shape) for _, part in parts)
        if stored != prod(shape):
            raise DamagedError(f"{stored} of the {prod(shape)} numbers of {name!r} are stored")

    def pieces(self) -> Iterator[Piece]:
        for _, part in self._parts:
            yield from part.pieces()

    def build(self, views: Views) -> Tensor:
        if len(self._parts) == 1:
            return self._parts[0][1].build(views)
        whole = torch.empty(self.shape, dtype=self.dtype)
        filled = torch.zeros(self.shape, dtype=torch.bool)
        for start, part in self._parts:
            place = tuple(slice(begin, begin + size) for begin, size in zip(start, part.shape, strict=True))
            if bool(filled[place].any()):
                raise DamagedError(f"two pieces of {self._name!r} overlap")
            filled[place] = True
            whole[place] = part.build(views)
        return whole


def read_folder(folder: Path, open_file: Callable[[Path], Source]) -> dict[str, Any]:
    """What was saved, nested as it was; the tensors whole, however many processes wrote parts of them.

    Args:
        folder: of one checkpoint.
        open_file: opens one of its files, for as long as tensors are to be read.

    Raises:
        ValueError: the table contradicts itself or the files.
    """
    table = open_file(folder / CONTENTS)
    contents = _record(parse_pickle(table.read(0, table.size))[0], "Metadata")
    files: dict[str, Source] = {}
    stored: dict[str, dict[tuple[int, ...], Any]] = {}
    for index, info in _pairs(contents["storage_data"]):
        place = _record(index, "MetadataIndex")
        found = stored.setdefault(_text(place["fqn"]), {})
        start = _sizes(place["offset"]) if place.get("offset") is not None else ()
        if start in found:
            raise DamagedError(f"{place['fqn']!r} is stored twice")
        found[start] = _piece(folder, _record(info, "_StorageInfo"), files, open_file)
    flat = {name: _whole(name, entry, stored.get(name, {})) for name, entry in _pairs(contents["state_dict_metadata"])}
    if STRUCTURE in flat:
        return put_in(_structure(flat.pop(STRUCTURE)), flat)  # type: ignore[no-any-return]
    paths = rebuild(contents.get("planner_data"), _no_storage)
    return _nested(flat, paths if isinstance(paths, dict) else {})


def _piece(folder: Path, info: dict[str, Any], files: dict[str, Source], open_file: Callable[[Path], Source]) -> Any:
    """One piece: a torch file within the file."""
    if info.get("transform_descriptors"):
        raise DamagedError("a piece is compressed or encrypted; save it plain")
    name = _text(info["relative_path"])
    if name not in files:
        files[name] = open_file(file_in(folder, name))
    start, size = whole_number(info["offset"]), whole_number(info["length"])
    if start + size > files[name].size:
        raise DamagedError(f"a piece reaches past the end of {name!r}")
    return read_zip(files[name], start, size)


def _whole(name: str, entry: Any, parts: dict[tuple[int, ...], Any]) -> Any:
    """The tensor that a name stands for, or whatever else was stored under it."""
    if not _is_record(entry, "TensorStorageMetadata"):
        if len(parts) != 1:
            raise DamagedError(f"{name!r} is stored {len(parts)} times")
        return next(iter(parts.values()))
    described = _record(entry, "TensorStorageMetadata")
    shape = _sizes(described["size"])
    properties = described["properties"]
    state = properties.state if isinstance(properties, Call) else None
    dtype = state[0] if isinstance(state, tuple) and state else None
    known = DTYPES.get((dtype.module, dtype.name)) if isinstance(dtype, Name) else None
    if known is None or not all(isinstance(part, StoredTensor) for part in parts.values()):
        raise DamagedError(f"{name!r} has no dtype, or a piece of it is no tensor")
    return PiecedTensor(name, shape, known, [(start or (0,) * len(shape), part) for start, part in parts.items()])


def _is_record(item: Any, name: str) -> bool:
    function = item.function if isinstance(item, Call) else None
    return isinstance(function, Name) and function.module.startswith(CLASSES) and function.name == name


def _structure(item: Any) -> Any:
    if not isinstance(item, tuple) or len(item) != 1:
        raise DamagedError("the entry that says how its tensors are nested is damaged")
    return item[0]


def _record(item: Any, name: str) -> dict[str, Any]:
    """The attributes of an object of one of DCP's classes."""
    if not _is_record(item, name) or not isinstance(item.state, Data):
        raise PickleError(f"its table has no {name} where one is expected")
    return item.state


def _pairs(item: Any) -> Iterable[tuple[Any, Any]]:
    if not isinstance(item, Data):
        raise PickleError("its table of contents is no table")
    return [*item.items(), *item.others]


def _text(item: Any) -> str:
    if not isinstance(item, str):
        raise PickleError("a name in its table is no string")
    return item


def _sizes(item: Any) -> tuple[int, ...]:
    sizes = rebuild(item, _no_storage)
    if not isinstance(sizes, tuple):
        raise PickleError("a shape in its table is invalid")
    return tuple(whole_number(size) for size in sizes)


def _no_storage(saved: Any) -> Any:
    raise PickleError("its table of contents has a tensor in it")


def _nested(flat: dict[str, Any], paths: dict[str, Any]) -> dict[str, Any]:
    """Put what was flattened back into mappings and lists: a whole number in a path is a place in a list."""
    tree: dict[Any, Any] = {}
    for name, value in flat.items():
        path = paths.get(name) or (name,)
        if not isinstance(path, tuple) or not all(isinstance(step, str | int) for step in path):
            raise PickleError("its table has an invalid path")
        place = tree
        for step in path[:-1]:
            place = place.setdefault(step, {})
            if not isinstance(place, dict):
                raise PickleError("its table has a path through a value")
        place[path[-1]] = value
    return {name: _with_lists(value) for name, value in tree.items()}


def _with_lists(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    if tree and all(isinstance(key, int) for key in tree):
        return [_with_lists(tree[key]) for key in sorted(tree)]
    return {key: _with_lists(value) for key, value in tree.items()}
