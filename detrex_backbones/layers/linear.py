"""Linear layers, which some CPUs compute faster as 1x1 convolutions.

On a CPU torch multiplies float32 matrices by Intel's MKL, which uses vectors of 256 bits on AMD's processors, also on
those that have AVX-512. Convolutions go to oneDNN, which uses all 512 and takes about half the time.
"""

from __future__ import annotations

import functools
import math
import platform
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FastLinear", "Linear", "apply_linear"]

# torch gives a 1x1 convolution to oneDNN if there are so many images, or several threads and a map of more numbers.
IMAGES = 16
ONE_IMAGE = 20480
ROWS = 16  # of each image, at least
WORK = 1 << 22  # multiplications; for fewer the detour takes longer than it saves


class FastLinear(nn.Linear):
    """`torch.nn.Linear`, with the same arguments, parameters and results, computed by `apply_linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return F.linear(input, self.weight, self.bias)
        return apply_linear(input, self.weight, self.bias)


def apply_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`, by a 1x1 convolution where that is faster: the rows are the pixels of images.

    Args:
        input: (..., in_features).
        weight: (out_features, in_features).
        bias: (out_features,), or None.

    Returns:
        (..., out_features).
    """
    images = _images(input, weight, bias)
    if not images:
        return F.linear(input, weight, bias)
    rows = input.numel() // input.shape[-1] // images
    width = math.gcd(rows, ROWS)  # maps that are neither one long row nor one long column
    pixels = input.reshape(images, rows // width, width, input.shape[-1]).permute(0, 3, 1, 2)
    result = F.conv2d(pixels, weight[:, :, None, None], bias).permute(0, 2, 3, 1)
    return result.reshape(*input.shape[:-1], weight.shape[0]).contiguous()


def _images(input: Tensor, weight: Tensor, bias: Tensor | None) -> int:
    """How many images the rows are to be taken for; 0 where a convolution is not faster, or not what is asked for."""
    # Exporters and compilers are to see a linear layer; so is whoever replaces the weight, by a quantised one say.
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return 0
    if not _mkl_is_slow():  # on most machines, and on each layer's way: nothing is looked at before it
        return 0
    if not all(map(_is_plain, (input, weight) if bias is None else (input, weight, bias))):
        return 0
    if not torch.backends.mkldnn.enabled or torch.is_autocast_enabled("cpu"):
        return 0
    if input.shape[-1:] != weight.shape[1:] or (bias is not None and bias.shape != weight.shape[:1]):
        return 0
    rows = input.numel() // max(weight.shape[1], 1)
    if rows * weight.numel() < WORK:
        return 0
    if rows % IMAGES == 0 and rows >= IMAGES * ROWS:
        return IMAGES
    return int(input.numel() > ONE_IMAGE and torch.get_num_threads() > 1)


def _is_plain(tensor: Tensor) -> bool:
    """Whether it is float32 numbers in this machine's memory, and nothing more."""
    if type(tensor) not in (Tensor, nn.Parameter) or not tensor.is_cpu or tensor.dtype != torch.float32:
        return False
    return tensor.layout == torch.strided and not tensor.is_nested


@functools.cache
def _mkl_is_slow() -> bool:
    """Whether this is an AMD processor with AVX-512, and torch has both libraries."""
    there = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return there and "AVX512" in torch.backends.cpu.get_cpu_capability() and "AuthenticAMD" in _processor()


def _processor() -> str:
    """The line of the system's that names the processor's maker."""
    try:
        with Path("/proc/cpuinfo").open() as lines:  # a part for each core: the first will do
            return next((line for line in lines if line.startswith("vendor_id")), "")
    except OSError:
        return platform.processor()


# torch's own everywhere else, so that what looks for exactly that class, as torch.ao's quantisation does, finds it.
Linear = FastLinear if _mkl_is_slow() else nn.Linear
