"""Files of safetensors: the length of a header, the header (JSON), and the numbers.

Source: the format as its project describes it (huggingface/safetensors, README).
"""

from __future__ import annotations

import json
from math import prod
from typing import Any

import torch

from detrex_backbones.checkpoint.read.records import without_halves
from detrex_backbones.checkpoint.read.source import DamagedError, Piece, Source
from detrex_backbones.checkpoint.read.stored import StoredTensor

__all__ = ["parse_json", "read_header", "read_safetensors"]

LENGTH = 8  # bytes of the number that the file begins with
HEADER = 24 << 20  # bytes of a header, 200,000 tensors' or so, that may be longer than what it describes
METADATA = "__metadata__"
DIMENSIONS = 64
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool,
    "C64": torch.complex64, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}  # fmt: skip
if hasattr(torch, "float8_e8m0fnu"):  # torch 2.7
    DTYPES["F8_E8M0"] = torch.float8_e8m0fnu


def read_safetensors(source: Source) -> dict[str, StoredTensor]:
    """Name -> tensor. Their bytes fill what follows the header, without gaps and overlaps.

    Raises:
        DamagedError: they don't, or the header is no such header.
    """
    header, start = read_header(source)
    header.pop(METADATA, None)
    tensors, places = {}, []
    for written, entry in header.items():
        name = without_halves(written)
        if name in tensors:
            raise DamagedError(f"its header has {name!r} twice")
        try:
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        except (TypeError, KeyError, ValueError) as error:
            raise DamagedError(f"its header doesn't describe {name!r}") from error
        if not isinstance(shape, list) or len(shape) > DIMENSIONS or not _are_counts([*shape, begin, end]):
            raise DamagedError(f"its header gives {name!r} an invalid shape or offset")
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise DamagedError(f"{name!r} has the dtype {str(dtype)[:20]!r}. Known: {', '.join(DTYPES)}")
        if prod(shape) * DTYPES[dtype].itemsize != end - begin:
            raise DamagedError(f"{name!r} of {dtype} and shape {shape} can't have {end - begin} bytes")
        places.append((begin, end, name))
        tensors[name] = StoredTensor(Piece(source, start + begin, end - begin, None, name), DTYPES[dtype], shape)
    reached = 0
    for begin, end, name in sorted(places):
        if begin != reached:
            raise DamagedError(f"the bytes of {name!r} begin at {begin}, where those before it end at {reached}")
        reached = end
    if start + reached != source.size:
        raise DamagedError(f"its header describes {start + reached} bytes, and it has {source.size}")
    return tensors


def read_header(source: Source) -> tuple[dict[str, Any], int]:
    """What the file says of its tensors, unchecked, and where the first one begins.

    Raises:
        DamagedError: there is no header, or it isn't JSON.
    """
    length = int.from_bytes(source.read(0, LENGTH), "little")
    if length > source.size - LENGTH:
        raise DamagedError(f"its header of {length} bytes is longer than the file")
    if length > max(HEADER, source.size - LENGTH - length):
        raise DamagedError(f"its header of {length} bytes is longer than the tensors that it describes")
    return parse_json(source.read(LENGTH, length), "its header"), LENGTH + length


def parse_json(data: bytes, what: str) -> dict[str, Any]:
    """A table in JSON.

    Args:
        data: the text.
        what: it is, for messages.

    Raises:
        DamagedError: it isn't JSON, or something else than a table, or a name occurs in it twice.
    """
    try:
        table = json.loads(data.decode("utf-8"), object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{what} is no JSON ({str(error)[:80]})") from error
    if not isinstance(table, dict):
        raise DamagedError(f"{what} is no table")
    return table


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name occurs in it twice")
    return made


def _are_counts(values: list[Any]) -> bool:
    return {*map(type, values)} == {int} and min(values) >= 0 and max(values) < 1 << 63
