"""Darknet-53 as YOLOv3 trained it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from detrex_backbones.backbones.timm.backbone import TimmBackbone
from detrex_backbones.errors import ArgumentError

__all__ = ["Darknet53"]


class Darknet53(TimmBackbone):
    """Darknet-53 (Redmon and Farhadi 2018): timm's, with the LeakyReLU of the original.

    timm's darknet53 has another slope than Darknet itself and the weights of YOLOv3 that come from there: 0.01 for 0.1.
    No file holds the slope, so both load into both, and the wrong one gives other maps.

    Args:
        out_indices: which maps, of strides 1, 2, 4, 8, 16, 32 for 0 to 5. YOLOv3 takes 3, 4 and 5.
        norm_layer: as of `TimmBackbone`.
        negative_slope: slope of every LeakyReLU: 0.1 for Darknet's own weights and OpenMMLab's, 0.01 for timm's.
        **kwargs: further arguments of `TimmBackbone`, except for the name.

    Raises:
        ArgumentError: see `TimmBackbone`; or a slope that is no number.
    """

    def __init__(
        self,
        out_indices: Sequence[int] = (3, 4, 5),
        norm_layer: str | Callable[..., nn.Module] | None = None,
        negative_slope: float = 0.1,
        **kwargs: Any,
    ) -> None:
        if "model_name" in kwargs:
            raise ArgumentError(
                f"Darknet53 has its model_name already; {kwargs['model_name']!r} is a model for TimmBackbone."
            )
        super().__init__("darknet53", out_indices=out_indices, norm_layer=norm_layer, **kwargs)
        for module in self.modules():
            if isinstance(module, nn.LeakyReLU):
                module.negative_slope = negative_slope
