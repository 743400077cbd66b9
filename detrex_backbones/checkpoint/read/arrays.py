"""Arrays and numbers of numpy in a pickle, as tensors whose bytes are where they are.

Source: what `numpy` writes for them (numpy/_core/multiarray and numeric).
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from detrex_backbones.checkpoint.read.dtypes import NUMPY
from detrex_backbones.checkpoint.read.records import Call, PickleError
from detrex_backbones.checkpoint.read.source import Piece
from detrex_backbones.checkpoint.read.stored import LazyTensor, OtherTensor, StoredTensor, strides_of

if TYPE_CHECKING:
    from detrex_backbones.checkpoint.read.rebuild import _Rebuilder

__all__ = ["ARRAYS"]

Constructor = Callable[["_Rebuilder", Call, int], Any]


def _array(run: _Rebuilder, call: Call, depth: int) -> Any:
    """An array of numpy, which is made empty and then given its state."""
    if call.items or call.pairs or not isinstance(call.state, tuple):
        raise PickleError("an array has no values")
    shape, dtype, fortran, data = call.state[-4:]
    if isinstance(data, list):
        return OtherTensor("an array of objects; save one of numbers", run.sizes(shape))
    return _from_bytes(run, data, dtype, run.sizes(shape), first_fastest=fortran is True)


def _from_buffer(run: _Rebuilder, call: Call, depth: int) -> Any:
    data, dtype, shape, order, *axes = run.arguments(call, depth)
    made = _from_bytes(run, data, dtype, run.sizes(shape), first_fastest=order == "F")
    if order != "K" or not isinstance(made, StoredTensor):
        return made
    turned = run.sizes(axes[0])  # since numpy 2.3: the array's axes in memory's order
    if sorted(turned) != list(range(made.dim())):
        raise PickleError(f"an array of {made.dim()} dimensions has its axes in the order {turned}")
    shape, stride = ([sizes[axis] for axis in turned] for sizes in (made.shape, made.stride))
    return StoredTensor(made.piece, made.dtype, shape, stride, swapped=made.swapped)


def _scalar(run: _Rebuilder, call: Call, depth: int) -> Any:
    dtype, data = run.arguments(call, depth)
    spec, swapped = run.numpy_dtype(dtype)
    if not spec:
        return call
    return np.frombuffer(run.bytes_of(data), np.dtype(spec).newbyteorder(">" if swapped else "="), count=1)[0]


def _from_bytes(run: _Rebuilder, data: Any, dtype: Any, shape: tuple[int, ...], *, first_fastest: bool) -> LazyTensor:
    spec, swapped = run.numpy_dtype(dtype)
    if spec not in NUMPY:
        return OtherTensor(f"an array of {spec or 'structures'}, which torch doesn't have", shape)
    source, kind = run.source_of(data), NUMPY[spec]
    if source.size != prod(shape) * kind.itemsize:
        raise PickleError(f"an array of shape {shape} has {source.size} bytes")
    piece = Piece(source, 0, source.size)
    stride = strides_of(shape, first_fastest=True) if first_fastest else None
    return StoredTensor(piece, kind, shape, stride, swapped=swapped)


ARRAYS: dict[tuple[str, str], Constructor] = {
    (f"{module}.{place}", name): make
    for module in ("numpy.core", "numpy._core")  # before numpy 2 and since
    for place, name, make in (
        ("multiarray", "_reconstruct", _array),
        ("multiarray", "scalar", _scalar),
        ("numeric", "_frombuffer", _from_buffer),
    )
}
