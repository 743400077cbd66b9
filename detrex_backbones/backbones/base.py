"""What every backbone promises to whatever follows it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from detrex_backbones.layers import ShapeSpec, fuse_norms

__all__ = ["Backbone"]


class Backbone(nn.Module, ABC):
    """A network that turns images into named feature maps. The contract is detectron2's.

    A subclass sets `_out_features`, `_out_feature_channels` and `_out_feature_strides`, or overrides `output_shape`.
    """

    _out_features: list[str]
    _out_feature_channels: dict[str, int]
    _out_feature_strides: dict[str, int]

    @abstractmethod
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, C, H, W) -> {name: map (N, C', H / stride, W / stride)}, in the order of `output_shape()`."""

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of every map that `forward` returns, known before the first forward."""
        return {
            name: ShapeSpec(channels=self._out_feature_channels[name], stride=self._out_feature_strides[name])
            for name in self._out_features
        }

    def fuse(self) -> Backbone:
        """Fold the batch norms into the convolutions, in place, for inference; see `fuse_norms`."""
        fuse_norms(self)
        return self

    @property
    def size_divisibility(self) -> int:
        """What H and W of the input must be multiples of, in pixels; 0 where any size will do."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Constraints on padding beyond divisibility: `size_divisibility` and `square_size`, in pixels; {} for none."""
        return {}
