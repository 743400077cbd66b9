"""Files of numpy: `.npz`, a zip archive of arrays, and `.npy`, one array.

Source: numpy's own description of the format (numpy/lib/format.py).
"""

from __future__ import annotations

import re
from math import prod
from typing import NoReturn

from detrex_backbones.checkpoint.read.dtypes import DIMENSIONS, NUMPY
from detrex_backbones.checkpoint.read.source import DamagedError, OtherFormatError, Piece, Source
from detrex_backbones.checkpoint.read.stored import LazyTensor, OtherTensor, StoredTensor, strides_of
from detrex_backbones.checkpoint.read.zip_archive import ZipArchive

__all__ = ["MAGIC", "read_archive", "read_array", "refuse_array"]

MAGIC = b"\x93NUMPY"
HEADER_BYTES = 1 << 16  # more than any array of numbers needs
# A literal of Python, as every writer has it; Python 2's long integers end with L. No parser of Python sees it.
HEADER = re.compile(
    r"\{\s*'descr':\s*('[^']*'|\[.*\]),\s*'fortran_order':\s*(True|False),"
    r"\s*'shape':\s*\(([\dL, ]*)\),?\s*\}\s*"
)


def read_archive(source: Source) -> dict[str, LazyTensor]:
    """Name -> array of what `numpy.savez` wrote.

    Raises:
        DamagedError: it is damaged, or compressed.
    """
    archive = ZipArchive(source)
    if archive.compressed:
        raise OtherFormatError("has compressed arrays", "import numpy; numpy.savez('weights.npz', **numpy.load(FILE))")
    return {name.removesuffix(".npy"): _array_at(piece) for name, piece in archive.entries.items()}


def read_array(source: Source) -> LazyTensor:
    """The array of a `.npy`."""
    return _array_at(Piece(source, 0, source.size))


def refuse_array(source: Source) -> NoReturn:
    """Say how a `.npy`, which has one array and no name, becomes a file of tensors by their names.

    Raises:
        OtherFormatError: always, if the file is whole.
    """
    found = read_array(source)
    if "'|O'" in found.unread:
        raise OtherFormatError(
            "has a pickled object, as numpy.save writes a dict. Loading it runs what is in it: only where you trust it",
            "import numpy; numpy.savez('weights.npz', **numpy.load(FILE, allow_pickle=True).item())",
        )
    raise OtherFormatError(
        f"has one array of shape {found.shape}, and no name for it",
        "import numpy; numpy.savez('weights.npz', **{'NAME': numpy.load(FILE)})",
    )


def _array_at(piece: Piece) -> LazyTensor:
    head = piece.source.read(piece.start, min(piece.size, 12))
    if not head.startswith(MAGIC) or len(head) < 12 or head[6] not in (1, 2, 3):
        raise DamagedError(f"{piece.name!r} is no array")
    width = 2 if head[6] == 1 else 4
    start = 8 + width
    length = int.from_bytes(head[8:start], "little")
    if length > min(HEADER_BYTES, piece.size - start):
        raise DamagedError(f"the header of {piece.name!r} is longer than an array's")
    text = piece.source.read(piece.start + start, length).decode("latin1")
    header = HEADER.fullmatch(text)
    sizes = [size.strip().removesuffix("L") for size in header[3].split(",") if size.strip()] if header else []
    if not header or not all(size.isdigit() and len(size) < 20 for size in sizes):
        raise DamagedError(f"the header of {piece.name!r} describes no array")
    shape = tuple(map(int, sizes))
    found = re.fullmatch(r"'([<>|=])([fiubc]\d{1,2})'", header[1])
    if not found or found[2] not in NUMPY:
        return OtherTensor(f"an array of {header[1][:40]}, which torch doesn't have", shape)
    dtype = NUMPY[found[2]]
    data = start + length
    if len(shape) > DIMENSIONS or piece.size - data != prod(shape) * dtype.itemsize:
        raise DamagedError(f"{piece.name!r} of shape {shape} has {piece.size - data} bytes")
    strides = strides_of(shape, first_fastest=header[2] == "True")
    # The whole entry is read, since its checksum is of all of it; the header's bytes are numbers that no view shows.
    if data % dtype.itemsize:
        raise DamagedError(f"the header of {piece.name!r} has {data} bytes, no multiple of its numbers'")
    return StoredTensor(piece, dtype, shape, strides, data // dtype.itemsize, swapped=found[1] == ">")
