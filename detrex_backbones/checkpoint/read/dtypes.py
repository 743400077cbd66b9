"""What numbers a file can have: torch's and numpy's, the classes of storages, and which views of one are inside it."""

from __future__ import annotations

import re
from math import prod
from typing import Any, NamedTuple

import torch

from detrex_backbones.checkpoint.read.records import Call, Name, PickleError, told
from detrex_backbones.checkpoint.read.source import Piece

__all__ = [
    "DIMENSIONS",
    "DTYPES",
    "NUMPY",
    "SIGNED",
    "Storage",
    "check_inside",
    "numpy_dtype",
    "storage_type",
    "whole_number",
]

DIMENSIONS = 64  # of a tensor; numpy's limit


class Storage(NamedTuple):
    """The numbers that tensors are views of.

    Args:
        piece: their bytes.
        dtype: what they are.
        swapped: whether the highest byte of each comes first.
    """

    piece: Piece
    dtype: torch.dtype
    swapped: bool = False


def whole_number(value: Any) -> int:
    """A count: an int from 0 to 2^63."""
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise PickleError("a size or place is no integer below 2**63")
    return value


def storage_type(record: Any) -> torch.dtype:
    """The dtype of a storage's class.

    Raises:
        PickleError: there is no such class, or it is of quantised numbers.
    """
    if isinstance(record, Name) and record.module in STORAGE_MODULES and record.name in STORAGES:
        return STORAGES[record.name]
    raise PickleError(f"it has a storage of an unknown kind: {told(record)}")


def check_inside(stored: int, offset: int, shape: tuple[int, ...], steps: tuple[int, ...]) -> None:
    """Refuse a view that reaches past its storage, or is larger than it."""
    if len(shape) != len(steps):
        raise PickleError(f"a tensor of {len(shape)} sizes has {len(steps)} strides")
    count = prod(shape)
    end = offset + sum((length - 1) * step for length, step in zip(shape, steps, strict=True)) + 1
    if count and end > stored:
        raise PickleError(f"a tensor of shape {shape} needs {end} numbers, but only {stored} are stored")
    if count > stored:
        raise PickleError(
            f"a tensor of shape {shape} repeats the {stored} numbers that are stored; save it as tensor.contiguous()"
        )


def numpy_dtype(record: Any) -> tuple[str, bool]:
    """The kind and width of numpy's numbers, "f4", and whether the highest byte comes first; "" for no numbers."""
    if not isinstance(record, Call) or not isinstance(record.function, Name):
        raise PickleError("an array has no dtype")
    if record.function.module == "numpy.dtypes":
        return NUMPY_CLASSES.get(record.function.name, ""), False
    if (record.function.module, record.function.name) != ("numpy", "dtype") or record.items or record.pairs:
        raise PickleError("an array has no dtype")
    name = record.arguments[0]
    found = re.fullmatch(r"([<>=|]?)([fiubc]\d{1,2})", name) if isinstance(name, str) else None
    state = record.state
    order = found[1] if found else ""
    if state is not None:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            return "", False  # of structures
        order = state[1]
    return found[2] if found else "", order == ">"


DTYPES = {("torch", name): value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128, "ComplexFloatStorage": torch.complex64, "UntypedStorage": torch.uint8,
    # Quantised numbers: the tensors of them are recognised where they are made.
    "QInt8Storage": torch.int8, "QUInt8Storage": torch.uint8, "QInt32Storage": torch.int32,
    "QUInt4x2Storage": torch.uint8, "QUInt2x4Storage": torch.uint8,
}  # fmt: skip
STORAGE_MODULES = ("torch", "torch.cuda", "torch.storage")
NUMPY = {
    "f2": torch.float16, "f4": torch.float32, "f8": torch.float64, "i1": torch.int8, "i2": torch.int16,
    "i4": torch.int32, "i8": torch.int64, "u1": torch.uint8, "u2": torch.uint16, "u4": torch.uint32,
    "u8": torch.uint64, "b1": torch.bool, "c8": torch.complex64, "c16": torch.complex128,
}  # fmt: skip
NUMPY_CLASSES = {
    f"{kind}{8 * width}DType": f"{letter}{width}"
    for kind, letter in (("Float", "f"), ("Int", "i"), ("UInt", "u"))
    for width in (1, 2, 4, 8)
} | {"BoolDType": "b1"}
SIGNED = {value for value in DTYPES.values() if value.is_complex} | {
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
}  # fmt: skip
