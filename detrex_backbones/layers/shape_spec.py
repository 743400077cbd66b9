"""What a layer that follows a backbone needs to know of a feature map."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ShapeSpec"]


@dataclass(frozen=True)
class ShapeSpec:
    """Shape of a feature map as far as it is known without running the network.

    The fields are detectron2's, so that its necks and heads read ours.

    Args:
        channels: C of (N, C, H, W).
        height: H in pixels of the map, where it is fixed.
        width: W in pixels of the map, where it is fixed.
        stride: input pixels that one pixel of the map stands for.
    """

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
