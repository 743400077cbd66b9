"""Residual blocks: what a stage of a ResNet is made of."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from detrex_backbones.errors import ArgumentError, closest
from detrex_backbones.kinds import kinds_checked
from detrex_backbones.layers import Conv2d, FrozenBatchNorm2d, SqueezeExcitation
from detrex_backbones.layers.conv import conv_norm
from detrex_backbones.layers.norm import Norm

__all__ = ["AvgPoolConv2d", "BasicBlock", "BottleneckBlock", "CNNBlockBase", "ResNetBlockBase", "make_shortcut"]

# What a config may say -> what it means.
SHORTCUTS = {
    "conv1x1": "a 1x1 convolution with the stride",
    "conv3x3": "a 3x3 convolution with the stride",
    "avg_pool": "average pooling by the stride, then a 1x1 convolution without one",
}


@kinds_checked
class CNNBlockBase(nn.Module):
    """A part of a network with known channels and stride.

    Args:
        in_channels: C of the input (N, C, H, W).
        out_channels: C of the output.
        stride: H and W of the input over those of the output.
    """

    dilation: int = 1

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride

    def freeze(self) -> CNNBlockBase:
        """Stop training it: no parameter gets a gradient, every batch norm becomes a `FrozenBatchNorm2d`."""
        for parameter in self.parameters():
            parameter.requires_grad = False
        FrozenBatchNorm2d.convert_frozen_batchnorm(self)
        return self


ResNetBlockBase = CNNBlockBase  # the other name that detectron2 and detrex export it by


class ResidualBlock(CNNBlockBase):
    """`relu(se(residual(x)) + shortcut(x))` (He et al. 2016); the shortcut is a projection where shapes differ.

    Subclasses define `residual`. Arguments are those that all blocks share, see `BasicBlock`.
    """

    shortcut: Conv2d | None
    se: SqueezeExcitation | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        dilation: int,
        norm: Norm,
        shortcut: str,
        se_reduction: int | None,
        project: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, stride)
        if dilation < 1:
            raise ArgumentError(f"dilation={dilation!r} of a {type(self).__name__} is not allowed: 1 or more.")
        self.dilation = dilation
        self.shortcut = None
        if in_channels != out_channels or stride != 1 or project:
            self.shortcut = make_shortcut(shortcut, in_channels, out_channels, stride, dilation, norm)
        self.se = None if se_reduction is None else SqueezeExcitation(out_channels, se_reduction)

    def residual(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride), before the addition."""
        raise TypeError(f"{type(self).__name__} does not say what its residual branch is: define `residual`.")

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride)."""
        residual = self.residual(x)
        if self.se is not None:
            residual = self.se(residual)
        residual += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(residual)


@kinds_checked
class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions: the block of ResNet-18 and ResNet-34 (He et al. 2016).

    Args:
        in_channels: C of the input (N, C, H, W).
        out_channels: C of the output and of both convolutions.
        stride: stride of the first convolution and of the shortcut.
        norm: the norm after every convolution, see `get_norm`.
        dilation: dilation of both convolutions.
        shortcut: the projection where input and output differ in shape: "conv1x1", "conv3x3" or "avg_pool", see
            `make_shortcut`.
        se_reduction: the reduction of a `SqueezeExcitation` between the last norm and the addition; None for none.
        project: whether there is a projection where shapes are the same, too.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        norm: Norm = "BN",
        dilation: int = 1,
        shortcut: str = "conv1x1",
        se_reduction: int | None = None,
        project: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, dilation, norm, shortcut, se_reduction, project)
        self.conv1 = conv_norm(in_channels, out_channels, 3, norm, stride=stride, dilation=dilation)
        self.conv2 = conv_norm(out_channels, out_channels, 3, norm, dilation=dilation)

    def residual(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu_(self.conv1(x)))  # type: ignore[no-any-return]


@kinds_checked
class BottleneckBlock(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions: the block of ResNet-50, 101 and 152 (He et al. 2016) and their descendants.

    Args:
        in_channels: C of the input (N, C, H, W).
        out_channels: C of the output.
        bottleneck_channels: channels of the 3x3 convolution.
        stride: stride of the block.
        num_groups: groups of the 3x3 convolution (ResNeXt, Xie et al. 2017).
        norm: the norm after every convolution, see `get_norm`.
        stride_in_1x1: True puts the stride into the first 1x1 convolution (the original MSRA networks, and Caffe's),
            False into the 3x3 one (torchvision, Caffe2). Weights made for one load into the other,
            and don't work there.
        dilation: dilation of the 3x3 convolution.
        reduce_first: the first 1x1 convolution has `bottleneck_channels / reduce_first` channels (SENet-154: 2).
        shortcut: as of `BasicBlock`.
        se_reduction: as of `BasicBlock`.
    """

    conv2_class: type[Conv2d] = Conv2d  # of the 3x3 convolution

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
    ) -> None:
        super().__init__(in_channels, out_channels, stride, dilation, norm, shortcut, se_reduction)
        first_channels = _first_channels(bottleneck_channels, reduce_first, num_groups)
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = conv_norm(in_channels, first_channels, 1, norm, stride=stride_1x1)
        conv2: dict[str, Any] = {"stride": stride_3x3, "dilation": dilation, "groups": num_groups}
        self.conv2 = conv_norm(first_channels, bottleneck_channels, 3, norm, conv_class=self.conv2_class, **conv2)
        self.conv3 = conv_norm(bottleneck_channels, out_channels, 1, norm)

    def _run_conv2(self, x: Tensor) -> Tensor:
        return self.conv2(x)  # type: ignore[no-any-return]

    def residual(self, x: Tensor) -> Tensor:
        x = F.relu_(self.conv1(x))
        x = F.relu_(self._run_conv2(x))
        return self.conv3(x)  # type: ignore[no-any-return]


def _first_channels(bottleneck_channels: int, reduce_first: int, num_groups: int) -> int:
    """Channels between the first two convolutions of a bottleneck block."""
    if reduce_first < 1 or bottleneck_channels % reduce_first:
        raise ArgumentError(
            f"reduce_first={reduce_first!r} does not divide bottleneck_channels={bottleneck_channels}. "
            f"1 reduces nothing, 2 halves."
        )
    channels = bottleneck_channels // reduce_first
    if num_groups < 1 or channels % num_groups or bottleneck_channels % num_groups:
        reduced = f" reduced to {channels} by reduce_first={reduce_first}" if reduce_first > 1 else ""
        raise ArgumentError(
            f"num_groups={num_groups!r} does not divide bottleneck_channels={bottleneck_channels}{reduced}: the 3x3 "
            f"convolution needs a width that is a multiple of its groups."
        )
    return channels


def make_shortcut(kind: str, in_channels: int, out_channels: int, stride: int, dilation: int, norm: Norm) -> Conv2d:
    """A projection with its norm: parameters `weight` and `norm.*`, whatever the kind; ArgumentError for another one.

    "conv1x1" is He et al. 2016's; "conv3x3" SENet-154's (Hu et al. 2018), the only one to which the block's dilation
    matters; "avg_pool", ResNet-D's (He et al. 2019), unlike a strided 1x1 convolution looks at every pixel.
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
