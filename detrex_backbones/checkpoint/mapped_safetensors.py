"""Reading .safetensors without a copy: every tensor lies in the one mapping of the file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from detrex_backbones.checkpoint.content import safetensors_header

__all__ = ["load"]

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def load(path: Path) -> dict[str, Tensor]:
    """Name -> tensor, mapped from the file: not to be written to.

    safetensors checks the header: lengths, dtypes, overlaps, holes, the end of the file. Its own reading takes as long
    again as mapping the file and copying what is in it, for it makes two objects of Python for each tensor; it is left
    what is rare: other dtypes, and tensors that don't begin at a multiple of the size of their numbers.

    Raises:
        Exception: safetensors' own, for what isn't right.
        ValueError: a header that is larger than weights need.
    """
    header, start = safetensors_header(path)
    with safe_open(path, framework="pt"):
        pass  # it is checked on opening
    header.pop("__metadata__", None)
    if path.stat().st_size == start:  # no bytes can't be mapped
        return dict(load_file(path))
    # Copy on write: torch takes no buffer that can't be written to, and nothing of the file is ever changed.
    data = np.memmap(path, np.uint8, mode="c", offset=start)
    if not all(_is_viewable(data, entry) for entry in header.values()):
        return dict(load_file(path))
    return {name: _view(data, entry) for name, entry in header.items()}


def _is_viewable(data: np.memmap[Any, Any], entry: dict[str, Any]) -> bool:
    dtype = DTYPES.get(entry["dtype"])
    return dtype is not None and (data.ctypes.data + entry["data_offsets"][0]) % dtype.itemsize == 0


def _view(data: np.memmap[Any, Any], entry: dict[str, Any]) -> Tensor:
    """A tensor with a storage of its own, so that it can be saved alone."""
    dtype, shape, (begin, end) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    count = math.prod(shape)
    if count * dtype.itemsize != end - begin:  # as safetensors has checked, unless the file has changed
        raise ValueError(f"a tensor of {entry['dtype']} and shape {shape} can't lie at bytes {begin} to {end}")
    if not count:  # torch makes none of no bytes
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype, count=count, offset=begin).view(shape)
