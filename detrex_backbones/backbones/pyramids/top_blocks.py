"""What makes further levels at the top of a pyramid."""

from __future__ import annotations

from collections.abc import Container, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from detrex_backbones.errors import ArgumentError
from detrex_backbones.kinds import kinds_checked

__all__ = ["LastLevelMaxPool", "LastLevelP6P7", "check_top_block", "takes_network_map"]


class LastLevelMaxPool(nn.Module):
    """One more level: every second pixel of "p5" is "p6" (Lin et al. 2017). Behaviour and attributes are detectron2's.

    Args:
        in_feature: the map that it is made of.
    """

    num_levels = 1

    def __init__(self, in_feature: str = "p5") -> None:
        super().__init__()
        self.in_feature = in_feature

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> [(N, C, ceil(H / 2), ceil(W / 2))]."""
        return [F.max_pool2d(x, kernel_size=1, stride=2)]


@kinds_checked
class LastLevelP6P7(nn.Module):
    """Two more levels for RetinaNet: strided 3x3 convolutions (Lin et al. 2017). Attributes are detectron2's.

    Args:
        in_channels: channels of the map that they are made of.
        out_channels: channels of both levels.
        in_feature: name of that map: one of the network, or "p5".
    """

    num_levels = 2

    def __init__(self, in_channels: int, out_channels: int, in_feature: str = "res5") -> None:
        super().__init__()
        self.in_channels = in_channels
        self.in_feature = in_feature
        self.p6 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1)
        for conv in (self.p6, self.p7):
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, in_channels, H, W) -> two maps (N, out_channels, H / 2, W / 2) and (N, out_channels, H / 4, W / 4)."""
        p6: Tensor = self.p6(x)
        return [p6, self.p7(F.relu(p6))]


def check_top_block(top_block: nn.Module, allowed: Sequence[str]) -> None:
    """Refuse a top block without `num_levels` and `in_feature`, or one that wants a map that isn't `allowed`."""
    missing = [name for name in ("num_levels", "in_feature") if not hasattr(top_block, name)]
    if missing:
        raise ArgumentError(f"top_block is a {type(top_block).__name__} without {missing}: see LastLevelMaxPool.")
    if top_block.in_feature not in allowed:
        raise ArgumentError(f"top_block takes {top_block.in_feature!r}, which isn't there. Allowed: {allowed}.")


def takes_network_map(top_block: nn.Module, network: Container[str], levels: Container[str]) -> bool:
    """Whether a top block gets a map of the network, not of the pyramid.

    Where both have a map of its name, one that says its `in_channels` gets the network's.
    """
    source = top_block.in_feature
    return source not in levels or (source in network and hasattr(top_block, "in_channels"))
