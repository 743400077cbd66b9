"""The bottleneck block whose 3x3 convolution is deformable."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from detrex_backbones.backbones.resnet.blocks import BottleneckBlock
from detrex_backbones.errors import ArgumentError
from detrex_backbones.kinds import kinds_checked
from detrex_backbones.layers import Conv2d
from detrex_backbones.layers.deform_conv import DeformConv2d
from detrex_backbones.layers.norm import Norm

__all__ = ["DeformBottleneckBlock"]

KERNEL_AREA = 9


@kinds_checked
class DeformBottleneckBlock(BottleneckBlock):
    """A `BottleneckBlock` with a deformable 3x3 convolution (Dai et al. 2017; modulated: Zhu et al. 2018).

    The offsets come from a convolution `conv2_offset` that starts at zero: a new block samples where the plain one does
    (and, modulated, halves what it samples). Parameter names are detectron2's.

    Args:
        in_channels: C of the input (N, C, H, W).
        out_channels: C of the output.
        deform_modulated: learn a factor for each sample too.
        deform_num_groups: groups of channels with offsets of their own; must divide the channels of the 3x3
            convolution's input, `bottleneck_channels / reduce_first`.

    The other arguments are those of `BottleneckBlock`.
    """

    conv2_class = DeformConv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: Norm = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
        reduce_first: int = 1,
        shortcut: str = "conv1x1",
        se_reduction: int | None = None,
        deform_modulated: bool = False,
        deform_num_groups: int = 1,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            bottleneck_channels=bottleneck_channels,
            stride=stride,
            num_groups=num_groups,
            norm=norm,
            stride_in_1x1=stride_in_1x1,
            dilation=dilation,
            reduce_first=reduce_first,
            shortcut=shortcut,
            se_reduction=se_reduction,
        )
        channels = self.conv2.in_channels
        if deform_num_groups < 1 or channels % deform_num_groups:
            reduced = f" / reduce_first={reduce_first}" if reduce_first > 1 else ""
            raise ArgumentError(
                f"deform_num_groups={deform_num_groups!r} does not divide bottleneck_channels={bottleneck_channels}"
                f"{reduced}, the channels that the deformable convolution takes."
            )
        self.deform_modulated = deform_modulated
        # y, x and, modulated, the factor of each of the kernel's nine samples.
        per_group = (3 if deform_modulated else 2) * KERNEL_AREA
        like_conv2: dict[str, Any] = {"stride": self.conv2.stride, "padding": dilation, "dilation": dilation}
        self.conv2_offset = Conv2d(channels, per_group * deform_num_groups, 3, **like_conv2)
        nn.init.zeros_(self.conv2_offset.weight)

    def _run_conv2(self, x: Tensor) -> Tensor:
        offset = self.conv2_offset(x)
        if not self.deform_modulated:
            return self.conv2(x, offset)  # type: ignore[no-any-return]
        factors = offset.shape[1] // 3
        offset, factor = torch.split(offset, [2 * factors, factors], dim=1)
        return self.conv2(x, offset, factor.sigmoid())  # type: ignore[no-any-return]
