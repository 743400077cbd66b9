from detrex_backbones.layers.conv import Conv2d as Conv2d
from detrex_backbones.layers.frozen_batch_norm import FrozenBatchNorm2d as FrozenBatchNorm2d
from detrex_backbones.layers.fuse import fuse_norms as fuse_norms
from detrex_backbones.layers.norm import LayerNorm2d as LayerNorm2d
from detrex_backbones.layers.norm import get_norm as get_norm
from detrex_backbones.layers.shape_spec import ShapeSpec as ShapeSpec
from detrex_backbones.layers.squeeze_excitation import SqueezeExcitation as SqueezeExcitation
from detrex_backbones.layers.sync_batch_norm import NaiveSyncBatchNorm as NaiveSyncBatchNorm
