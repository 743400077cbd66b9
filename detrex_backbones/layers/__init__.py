"""The layers that backbones are built of."""

from detrex_backbones.layers.conv import Conv2d
from detrex_backbones.layers.frozen_batch_norm import FrozenBatchNorm2d
from detrex_backbones.layers.fuse import fuse_norms
from detrex_backbones.layers.norm import LayerNorm2d, get_norm
from detrex_backbones.layers.shape_spec import ShapeSpec
from detrex_backbones.layers.squeeze_excitation import SqueezeExcitation

__all__ = ["Conv2d", "FrozenBatchNorm2d", "LayerNorm2d", "ShapeSpec", "SqueezeExcitation", "fuse_norms", "get_norm"]
