"""Files of `torch.save`: the zip archive of today, and the row of pickles of before torch 1.6."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from detrex_backbones.checkpoint.read.dtypes import Storage, storage_type, whole_number
from detrex_backbones.checkpoint.read.pickle_data import parse_pickle
from detrex_backbones.checkpoint.read.rebuild import rebuild
from detrex_backbones.checkpoint.read.records import PersistentId, PickleError
from detrex_backbones.checkpoint.read.source import OtherFormatError, Piece, Source
from detrex_backbones.checkpoint.read.zip_archive import ArchiveError, ZipArchive
from detrex_backbones.text import shorten

__all__ = ["LEGACY_MAGIC", "read_legacy", "read_pickle", "read_zip"]

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
COUNT = 8  # bytes of the number that stands before each storage


def read_zip(source: Source, start: int = 0, size: int | None = None) -> Any:
    """What `torch.save` has put into a zip archive.

    Args:
        source: the bytes that it stands in.
        start: of its first byte there.
        size: in bytes; None for all that follows.

    Raises:
        ValueError: it is damaged, contradicts itself, or holds a program.
    """
    archive = ZipArchive(source, start, size)
    _refuse_others(archive.names)
    folders = {name.rpartition("/")[0] for name in archive.entries if name.rpartition("/")[2] == "data.pkl"}
    if len(folders) != 1:
        raise ArchiveError(f"it has {len(folders)} entries called data.pkl, where torch.save writes one")
    folder = f"{folders.pop()}/"
    order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in archive.entries else b"little"
    if order not in (b"little", b"big"):
        raise ArchiveError(f"its byte order is {order[:16]!r}")

    def storage(saved: Any) -> Storage:
        dtype, key, count = _described(saved)
        piece = archive.entries.get(f"{folder}data/{key}")
        if piece is None:
            raise PickleError(f"the storage {key!r} is not in the file")
        if piece.size != count * dtype.itemsize:
            raise PickleError(f"the storage {key!r} of {count} numbers of {dtype} has {piece.size} bytes")
        return Storage(piece, dtype, order == b"big")

    value, _ = parse_pickle(archive.read(f"{folder}data.pkl"))
    return rebuild(value, storage)


def _refuse_others(names: list[str]) -> None:
    files = {name.rpartition("/")[2].casefold() for name in names}
    if "constants.pkl" in files:
        raise OtherFormatError(
            "is a TorchScript program. Where you trust it, make weights of it: "
            "torch.save(torch.jit.load('file.pt').state_dict(), 'weights.pth')"
        )
    if files & {"archive_format", "serialized_exported_program.json"}:
        raise OtherFormatError(
            "is a program of torch.export. Where you trust it, make weights of it: "
            "torch.save(torch.export.load('file.pt2').state_dict, 'weights.pth')"
        )
    if "data.pkl" not in files:
        raise OtherFormatError(
            f"is a zip archive that torch.save didn't write, of {shorten(names, 3)}",
            "import zipfile; zipfile.ZipFile(FILE).extractall('weights')",
        )


def _described(saved: Any) -> tuple[torch.dtype, str, int]:
    """dtype, key and number of numbers of a storage."""
    if not isinstance(saved, tuple) or len(saved) < 5 or saved[0] != "storage" or not isinstance(saved[2], str):
        raise PickleError("it refers to an object that is no storage")
    return storage_type(saved[1]), saved[2], whole_number(saved[4])


def read_pickle(source: Source) -> Any:
    """A plain pickle, of arrays or of tensors whose storages are files of before torch 1.6 within it."""
    value, _ = parse_pickle(source.read_whole())
    return rebuild(value, _within)


def _within(data: Any) -> Storage:
    """The storage that is the whole content of a file within the file."""
    if not isinstance(data, memoryview):
        raise PickleError("it refers to a storage outside the file")
    record, storage = _parse_legacy(data)
    if not isinstance(record, PersistentId):
        raise PickleError("a storage in the file is invalid")
    return storage(record.value)


def read_legacy(source: Source) -> Any:
    """A file of before torch 1.6."""
    return rebuild(*_parse_legacy(source.read_whole()))


def _parse_legacy(data: memoryview) -> tuple[Any, Callable[[Any], Storage]]:
    """Three pickles about the file, one with the content, one with the keys of storages, and their bytes."""
    references: list[PersistentId] = []
    at, parsed = 0, []
    for _ in range(5):
        value, at = parse_pickle(data, at, references)
        parsed.append(value)
    magic, protocol, system, content, keys = parsed
    if (magic, protocol) != (LEGACY_MAGIC, LEGACY_PROTOCOL) or not isinstance(system, dict):
        raise PickleError("it isn't what torch.save wrote before torch 1.6")
    swapped = system.get("little_endian") is False
    pieces = _legacy_pieces(data, at, keys, _declared(references))

    def storage(saved: Any) -> Storage:
        dtype, key, _ = _described(saved)
        piece = pieces[key]
        if len(saved) > 5 and saved[5] is not None:  # a part of a storage, as torch 0.4 wrote it
            if not isinstance(saved[5], tuple) or len(saved[5]) != 3:
                raise PickleError(f"a part of the storage {key!r} is invalid")
            _, offset, count = saved[5]
            start, size = whole_number(offset) * dtype.itemsize, whole_number(count) * dtype.itemsize
            if start + size > piece.size:
                raise PickleError(f"a part of the storage {key!r} reaches past its end")
            piece = piece._replace(start=piece.start + start, size=size)
        return Storage(piece, dtype, swapped)

    return content, storage


def _declared(references: list[PersistentId]) -> dict[str, tuple[torch.dtype, int]]:
    """Every storage that a file refers to: key -> what its numbers are, and how many there are."""
    found: dict[str, tuple[torch.dtype, int]] = {}
    for record in references:
        dtype, key, count = _described(record.value)
        if found.setdefault(key, (dtype, count)) != (dtype, count):
            raise PickleError(f"the storage {key!r} is described in two ways")
    return found


def _legacy_pieces(
    data: memoryview, at: int, keys: Any, declared: dict[str, tuple[torch.dtype, int]]
) -> dict[str, Piece]:
    """Where the bytes of each storage are. Every one that is declared is there, once and whole."""
    texts = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not texts or len(set(keys)) != len(keys) or set(keys) != declared.keys():
        raise PickleError("the storages that it names are not those that it holds")
    source, pieces = Source.of_memory(data), {}
    for key in keys:
        dtype, count = declared[key]
        stored = int.from_bytes(data[at : at + COUNT], "little")
        at += COUNT
        size = count * dtype.itemsize
        if stored != count or at + size > len(data):
            raise PickleError(f"the storage {key!r} of {count} numbers is not in the file as a whole")
        pieces[key] = Piece(source, at, size, None, key)
        at += size
    return pieces
