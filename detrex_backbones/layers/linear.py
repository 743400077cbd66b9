"""Linear layers, on some CPUs as 1x1 convolutions, which torch computes faster there."""

from __future__ import annotations

import functools
import math
import platform
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Linear", "apply_linear"]

IMAGES = 16  # with fewer, torch leaves a 1x1 convolution on a single thread to MKL, too
ROWS = 16  # of each image, at least: less work than this is not worth the detour


class Linear(nn.Linear):
    """`torch.nn.Linear`, with the same arguments, parameters and results, computed by `apply_linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return apply_linear(input, self.weight, self.bias)


def apply_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`, by oneDNN where MKL is slow.

    On a CPU torch multiplies float32 matrices by Intel's MKL, which on AMD's processors uses vectors half as wide as
    those with AVX-512 have; convolutions go to oneDNN, which uses them whole and takes about half the time. There the
    rows of `input` are taken for the pixels of images, and multiplied by a 1x1 convolution: no copy is made.

    Args:
        input: (..., in_features).
        weight: (out_features, in_features).
        bias: (out_features,), or None.

    Returns:
        (..., out_features).
    """
    images = _images(input, weight)
    if not images:
        return F.linear(input, weight, bias)
    rows = input.numel() // input.shape[-1] // images
    width = math.gcd(rows, ROWS)  # oneDNN cuts a map into pieces of a row, and for many short ones takes longer
    pixels = input.reshape(images, rows // width, width, input.shape[-1]).permute(0, 3, 1, 2)
    result = F.conv2d(pixels, weight[:, :, None, None], bias)
    return result.permute(0, 2, 3, 1).reshape(*input.shape[:-1], weight.shape[0])


def _images(input: Tensor, weight: Tensor) -> int:
    """How many images the rows are to be taken for; 0 where a convolution is not faster, or not what is asked for."""
    # Exporters and compilers are to see a linear layer; so is whoever replaces the weight, by a quantised one say.
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore
        return 0
    if type(input) is not Tensor or type(weight) not in (Tensor, nn.Parameter) or not _mkl_is_slow():
        return 0
    if not torch.backends.mkldnn.enabled or torch.is_autocast_enabled("cpu"):
        return 0
    if not (input.is_cpu and weight.is_cpu and input.dtype == weight.dtype == torch.float32):
        return 0
    if weight.dim() != 2 or input.shape[-1:] != weight.shape[1:] or not weight.numel():
        return 0
    rows = input.numel() // weight.shape[1]
    if rows % IMAGES == 0 and rows >= IMAGES * ROWS:
        return IMAGES
    return int(rows >= ROWS and torch.get_num_threads() > 1)


@functools.cache
def _mkl_is_slow() -> bool:
    """Whether this is an AMD processor with AVX-512, and torch has both libraries."""
    there = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return there and "AVX512" in torch.backends.cpu.get_cpu_capability() and "AuthenticAMD" in _processor()


def _processor() -> str:
    """The line that names its maker."""
    try:
        with Path("/proc/cpuinfo").open() as lines:  # a part for each core: the first will do
            return next((line for line in lines if line.startswith("vendor_id")), "")
    except OSError:
        return platform.processor()
