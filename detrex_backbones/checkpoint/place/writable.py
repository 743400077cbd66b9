"""Whether a tensor of a model can be given a value: asked of every one before the first is changed."""

from __future__ import annotations

import functools
import re
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from detrex_backbones.errors import ArgumentError

__all__ = ["check_writable", "is_plain", "why_not_cast"]

MAPS = Path("/proc/self/maps")
READ_ONLY = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) r-", re.MULTILINE)
PLAIN = (Tensor, nn.Parameter, *((nn.Buffer,) if hasattr(nn, "Buffer") else ()))


def is_plain(tensor: Tensor) -> bool:
    """Whether copying to it can't run anybody else's code, nor fail once it's been checked. Of a DTensor: its part."""
    return type(tensor) in PLAIN


def check_writable(targets: Mapping[str, Tensor]) -> None:
    """Refuse a model that can't be written to.

    Args:
        targets: model key -> tensor that is to get a value, as far as this process holds it.

    Raises:
        ArgumentError: with the first key, what is wrong with it and how to mend it.
    """
    borrowed = {}
    for key, target in targets.items():
        _refuse(key, _why_not_written(target))
        # Memory that torch didn't allocate: of an array, a mapped file, another library.
        if not is_lazy(target) and target.numel() and not target.untyped_storage().resizable():
            borrowed[key] = target
    protected = _read_only_memory() if borrowed else []
    for key, target in borrowed.items():
        place = bisect_right(protected, (target.data_ptr(), 1 << 64)) - 1
        if place >= 0 and target.data_ptr() < protected[place][1]:
            _refuse(key, "its memory is read-only, as of a mapped file or array; make a copy of it: tensor.clone()")


def _refuse(key: str, why: str) -> None:
    if why:
        raise ArgumentError(f"the model's {key!r} can't be given a value: {why}. Nothing was changed.")


def _why_not_written(target: Tensor) -> str:
    if is_lazy(target):
        return "it has no shape before the model is run once; run it, or let each process read for itself"
    if target.is_meta:
        return "it is on the meta device and has no memory; call model.to_empty(device='cpu') first"
    if target.layout is not torch.strided:
        return f"its layout is {target.layout}; make it dense: tensor.to_dense()"
    if 0 in target.stride() and _is_expanded(target):
        return "it is expanded, so that many of its numbers are one in memory; make it whole: tensor.contiguous()"
    if target.is_inference() and not torch.is_inference_mode_enabled():
        return "it was made in inference mode; make the model outside torch.inference_mode()"
    return ""


def _is_expanded(target: Tensor) -> bool:
    return any(step == 0 and size > 1 for step, size in zip(target.stride(), target.shape, strict=True))


def _read_only_memory() -> list[tuple[int, int]]:
    """Where the memory of this process can't be written to, as far as the system tells."""
    try:
        text = MAPS.read_text()
    except OSError:
        return []
    return [(int(start, 16), int(end, 16)) for start, end in READ_ONLY.findall(text)]


@functools.cache
def why_not_cast(stored: torch.dtype, wanted: torch.dtype) -> str:
    """Why values of one dtype can't become those of another, "" where they can."""
    if stored == wanted:
        return ""
    if stored.is_complex and not wanted.is_complex:
        return "their imaginary parts would be lost"
    if stored.is_floating_point and not (wanted.is_floating_point or wanted.is_complex):
        return "their fractions would be lost"
    try:
        torch.zeros(1, dtype=wanted).copy_(torch.zeros(1).to(stored))
    except (RuntimeError, TypeError) as error:
        return f"torch can't do it ({str(error).splitlines()[0][:80]})"
    return ""
