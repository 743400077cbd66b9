"""Gluon's SENet-154 (Hu 2018).

SE-ResNeXt-152 64x4d with a deep stem, 3x3 projections and half as many channels in each first convolution.
"""

from ..common.resnet_deep_stem import model
from ..common.train import train

model.backbone.stages.depth = 152
model.backbone.stem.out_channels = 128
model.backbone.stages.in_channels = 128
model.backbone.stages.num_groups = 64
model.backbone.stages.width_per_group = 4
model.backbone.stages.reduce_first = 2
model.backbone.stages.shortcut = "conv3x3"
model.backbone.stages.se_reduction = 16

__all__ = ["model", "train"]
