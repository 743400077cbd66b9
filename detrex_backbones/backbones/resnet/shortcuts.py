"""The projection on the shortcut of a residual block, where its input and output differ in shape."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from detrex_backbones.errors import ArgumentError, closest
from detrex_backbones.layers.conv import Conv2d, conv_norm
from detrex_backbones.layers.norm import Norm

__all__ = ["make_shortcut"]

# What a config may say -> what it means.
SHORTCUTS = {
    "conv1x1": "a 1x1 convolution with the stride",
    "conv3x3": "a 3x3 convolution with the stride",
    "avg_pool": "average pooling by the stride, then a 1x1 convolution without one",
}


def make_shortcut(kind: str, in_channels: int, out_channels: int, stride: int, dilation: int, norm: Norm) -> Conv2d:
    """A projection with its norm: parameters `weight` and `norm.*`, whatever the kind.

    Args:
        kind: "conv1x1" (He et al. 2016); "conv3x3" (SENet-154, Hu et al. 2018); or "avg_pool", which unlike a strided
            1x1 convolution looks at every pixel (ResNet-D, He et al. 2019).
        in_channels: C of the input (N, C, H, W).
        out_channels: C of the output.
        stride: of the block.
        dilation: of the block; matters to "conv3x3" alone.
        norm: after the convolution, see `get_norm`.

    Raises:
        ArgumentError: for another kind.
    """
    if kind == "conv1x1":
        return conv_norm(in_channels, out_channels, 1, norm, stride=stride)
    if kind == "conv3x3":
        return conv_norm(in_channels, out_channels, 3, norm, stride=stride, dilation=dilation)
    if kind == "avg_pool":
        return conv_norm(in_channels, out_channels, 1, norm, conv_class=AvgPoolConv2d, pool_stride=stride)
    allowed = ", ".join(f"{name!r} ({meaning})" for name, meaning in SHORTCUTS.items())
    raise ArgumentError(f"shortcut={kind!r} is not known. Allowed: {allowed}.{closest(str(kind), SHORTCUTS)}")


class AvgPoolConv2d(Conv2d):
    """A `Conv2d` after average pooling by `pool_stride`.

    A window at the border averages over the pixels that it has, and the size is rounded up: that of a 3x3 convolution
    with the same stride and padding. With `pool_stride=1` there is no pooling. timm, where DC5 has taken the stride
    away, pools 2x2 windows at stride 1 instead; Gluon, like this, does not pool there.
    """

    def __init__(self, *args: Any, pool_stride: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pool_stride = pool_stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / pool_stride), ceil(W / pool_stride))."""
        if self.pool_stride > 1:
            x = F.avg_pool2d(x, self.pool_stride, ceil_mode=True, count_include_pad=False)
        return super().forward(x)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, pool_stride={self.pool_stride}"  # type: ignore[no-untyped-call]
