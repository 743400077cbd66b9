"""Deformable convolution on torchvision's operator: nothing to compile."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from detrex_backbones.layers.conv import Conv2d

__all__ = ["DeformConv2d"]


class DeformConv2d(Conv2d):
    """Convolution that samples at learned offsets (Dai et al. 2017), optionally modulated (Zhu et al. 2018).

    Arguments and parameter names are those of `Conv2d`; what the offsets are is up to the caller.
    """

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """(N, in_channels, H, W) -> (N, out_channels, H', W').

        Args:
            x: the input.
            offset: (N, 2 * groups * kernel area, H', W'): y and x of each sampling point, in pixels of `x`.
            mask: (N, groups * kernel area, H', W'): what each sample is multiplied by; None for plain deformable.
        """
        # Half precision would round the sampling points (to whole pixels in bfloat16), and has no kernel on the CPU.
        dtype = torch.promote_types(x.dtype, torch.float32)
        weight, bias, norm = self._weights()
        weight, offset = weight.to(dtype), offset.to(dtype)
        bias = None if bias is None else bias.to(dtype)
        mask = None if mask is None else mask.to(dtype)
        sampled = deform_conv2d(x.to(dtype), offset, weight, bias, self.stride, self.padding, self.dilation, mask)
        return self._finish(sampled.to(x.dtype), norm)
