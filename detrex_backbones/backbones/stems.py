"""Stems: from the image to the first stage."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from detrex_backbones.backbones.blocks import CNNBlockBase
from detrex_backbones.layers import Conv2d, get_norm
from detrex_backbones.layers.norm import Norm

__all__ = ["BasicStem"]


class BasicStem(CNNBlockBase):
    """A 7x7 convolution of stride 2 and a 3x3 max-pool of stride 2 (He et al. 2016): stride 4.

    Args:
        in_channels: channels of the image, any number.
        out_channels: channels of the result.
        norm: after the convolution, see `get_norm`.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 64, norm: Norm = "BN") -> None:
        super().__init__(in_channels, out_channels, stride=4)
        self.conv1 = Conv2d(
            in_channels,
            out_channels,
            kernel_size=7,
            stride=2,
            padding=3,
            bias=False,
            norm=get_norm(norm, out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H / 4, W / 4)."""
        x = F.relu_(self.conv1(x))
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
