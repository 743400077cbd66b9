"""Squeeze-and-excitation: a weight for every channel, computed from the whole map."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from detrex_backbones.errors import ArgumentError
from detrex_backbones.kinds import kinds_checked
from detrex_backbones.layers.conv import Conv2d

__all__ = ["SqueezeExcitation"]


@kinds_checked
class SqueezeExcitation(nn.Module):
    """`x * sigmoid(fc2(relu(fc1(mean of x over H and W))))` (Hu et al. 2018).

    Both layers are 1x1 convolutions with bias, called `fc1` and `fc2` as in Gluon's ports and timm.

    Args:
        channels: C of the input (N, C, H, W), and of the output.
        reduction: `fc1` gives `channels // reduction` channels. (timm rounds this to a multiple of 8, which is the
            same number from 128 channels on with the usual reduction of 16.)

    Raises:
        ArgumentError: a reduction that is no whole number, is below 1, or leaves no channel.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        if not 1 <= reduction <= channels:
            raise ArgumentError(
                f"se_reduction={reduction!r} does not go with {channels} channels. Allowed: a whole number from 1 to "
                f"{channels} (16 is usual), or None for no squeeze-and-excitation."
            )
        self.fc1 = Conv2d(channels, channels // reduction, kernel_size=1)
        self.fc2 = Conv2d(channels // reduction, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> the same shape."""
        squeezed = x.mean((2, 3), keepdim=True)
        weights: Tensor = self.fc2(F.relu_(self.fc1(squeezed))).sigmoid()
        return x * weights
