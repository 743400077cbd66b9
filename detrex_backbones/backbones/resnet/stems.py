"""Stems: from the image to the first stage."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from detrex_backbones.backbones.resnet.blocks import CNNBlockBase
from detrex_backbones.errors import ArgumentError
from detrex_backbones.kinds import kinds_checked
from detrex_backbones.layers.conv import conv_norm
from detrex_backbones.layers.norm import Norm

__all__ = ["BasicStem", "DeepStem"]


@kinds_checked
class BasicStem(CNNBlockBase):
    """A 7x7 convolution of stride 2 and a 3x3 max-pool of stride 2 (He et al. 2016): stride 4.

    Args:
        in_channels: channels of the image, any number.
        out_channels: channels of the result.
        norm: the norm after the convolution, see `get_norm`.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 64, norm: Norm = "BN") -> None:
        super().__init__(in_channels, out_channels, stride=4)
        self.conv1 = conv_norm(in_channels, out_channels, 7, norm, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H / 4, W / 4)."""
        x = F.relu_(self.conv1(x))
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


@kinds_checked
class DeepStem(CNNBlockBase):
    """Three 3x3 convolutions, the first of stride 2, and a 3x3 max-pool of stride 2: stride 4.

    The stem of ResNet-C, D, E and S (He et al. 2019, "Bag of Tricks"), SENet-154 and DeepLab. Parameters are called
    `conv1`, `conv2` and `conv3` as in detectron2's DeepLabStem.

    Args:
        in_channels: channels of the image, any number.
        out_channels: channels of the result: 64 for ResNet-C and D; 128 for ResNet-E, S and SENet-154, whose first
            stage needs `in_channels=128` then.
        norm: the norm after every convolution, see `get_norm`.
        mid_channels: channels of the first two convolutions: one number for both, or two numbers. None: half of
            `out_channels`, as all networks above have it.

    Raises:
        ArgumentError: neither one nor two positive numbers.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 64,
        norm: Norm = "BN",
        mid_channels: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, stride=4)
        first, second = _two_widths(out_channels // 2 if mid_channels is None else mid_channels)
        self.conv1 = conv_norm(in_channels, first, 3, norm, stride=2)
        self.conv2 = conv_norm(first, second, 3, norm)
        self.conv3 = conv_norm(second, out_channels, 3, norm)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H / 4, W / 4)."""
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.relu_(conv(x))
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


def _two_widths(mid_channels: int | Sequence[int]) -> list[int]:
    widths = [mid_channels] * 2 if isinstance(mid_channels, int) else list(mid_channels)
    if len(widths) != 2 or min(widths) < 1:
        raise ArgumentError(
            f"mid_channels={mid_channels!r} is not allowed: one number, or two: of the first and of the second "
            f"convolution; None for half of out_channels."
        )
    return widths
