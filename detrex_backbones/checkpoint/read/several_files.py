"""Checkpoints in several files, as Hugging Face writes them: pieces, and an index of which tensor is in which.

Source: what `save_pretrained` of transformers and diffusers writes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from detrex_backbones.checkpoint.read.safetensors_file import parse_json
from detrex_backbones.checkpoint.read.source import DamagedError, Source, open_source
from detrex_backbones.text import counted, shorten

__all__ = ["WEIGHT_FILES", "file_in", "is_index", "is_one_of_several", "pieces_of", "read_several", "weights_in"]

INDEX = ".index.json"
INDEX_BYTES = 1 << 26  # of a model with a million tensors
PIECE = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)")
# What a folder or a repository of Hugging Face calls its weights, in the order in which they are looked for.
SINGLE = ("model.safetensors", "pytorch_model.bin")
WEIGHT_FILES = (*SINGLE, *(f"{name}{INDEX}" for name in SINGLE))

Pieces = Mapping[str, set[str] | None]
"""Name of each file -> the tensors that the index says are in it; None where there is no index."""


def weights_in(folder: Path) -> Path | None:
    """The file of a folder that is its weights, or the index of them; None where there is none."""
    name = next((name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if name is not None:
        file_in(folder, name)
    return None if name is None else folder / name


def is_one_of_several(path: Path) -> bool:
    """Whether a file's name says that it is a piece of a checkpoint, or the index of the pieces."""
    return path.name.endswith(INDEX) or PIECE.fullmatch(path.name) is not None


def is_index(source: Source) -> bool:
    """Whether a file of JSON says which tensors are in which files."""
    return source.size <= INDEX_BYTES and b'"weight_map"' in source.read(0, source.size)


def pieces_of(path: Path) -> Pieces:
    """The files of the checkpoint that an index is of, or a piece of one: by its index where that is beside it.

    Raises:
        DamagedError: the index is none, or it or a name contradicts itself.
    """
    found = PIECE.fullmatch(path.name)
    if found is None:
        return _indexed(path)
    head, number, count, ending = found.groups()
    index = path.with_name(f"{head}{ending}{INDEX}")
    if index.is_file():
        file_in(path.parent, index.name)
        pieces = _indexed(index)
        if path.name not in pieces:
            raise DamagedError(f"{index.name!r} beside it doesn't name it")
        return pieces
    if not 1 <= int(number) <= int(count):
        raise DamagedError(f"its name says that it is piece {int(number)} of {int(count)}")
    return {f"{head}-{at:05}-of-{count}{ending}": None for at in range(1, int(count) + 1)}


def read_several(folder: Path, pieces: Pieces, read: Callable[[Path], Any]) -> dict[str, Any]:
    """Name -> tensor of all pieces together.

    Args:
        folder: that they are in.
        pieces: of `pieces_of`.
        read: what one file holds.

    Raises:
        DamagedError: files are missing or lead elsewhere, hold something else than the index says, or a tensor twice.
    """
    files = {name: file_in(folder, name) for name in pieces}
    missing = [name for name, file in files.items() if not file.is_file()]
    if missing:
        raise DamagedError(
            f"it is in {counted(len(files), 'file')}, of which {counted(len(missing), '', 'are')} missing "
            f"beside it: {shorten(missing)}"
        )
    whole: dict[str, Any] = {}
    for name, listed in pieces.items():
        held = read(files[name])
        if not isinstance(held, dict):
            raise DamagedError(f"{name!r} holds no tensors by their names")
        if listed is not None and held.keys() != listed:
            raise DamagedError(
                f"the index and {name!r} disagree about {shorten(sorted(held.keys() ^ listed, key=str))}"
            )
        if whole.keys() & held.keys():
            raise DamagedError(f"{name!r} repeats tensors of another file: {shorten(whole.keys() & held.keys())}")
        whole |= held
    return whole


def file_in(folder: Path, name: str) -> Path:
    """Where a file of a folder is whose name stands in another file.

    Raises:
        DamagedError: the name is that of no file in the folder, or of a link that leads out of it.
    """
    plain = name.isprintable() and name not in ("", "..") and {*"/\\:"}.isdisjoint(name)
    if not plain or Path(name).name != name:
        raise DamagedError(f"it names a file elsewhere: {name!r}")
    home, real = folder.resolve(), (folder / name).resolve()
    # In the hub's cache every file is a link into the folder of blobs.
    homes = [home, *(above.parent / "blobs" for above in home.parents if above.name == "snapshots")]
    if not any(real.is_relative_to(allowed) for allowed in homes):
        raise DamagedError(f"{name!r} is a link out of the folder, to {str(real)!r}. Give the folder of the files")
    return real


def _indexed(path: Path) -> Pieces:
    with open_source(path) as source:
        content = parse_json(source.read(0, min(source.size, INDEX_BYTES)), "the index")
    table = content.get("weight_map")
    if not isinstance(table, dict) or not table:
        raise DamagedError("the index has no table weight_map of tensors and files")
    pieces: dict[str, set[str]] = {}
    for tensor, name in table.items():
        pieces.setdefault(str(name), set()).add(tensor)
    for name in pieces:
        file_in(path.parent, name)
    return pieces
