"""Gluon's ResNeXt-101 64x4d.

Xie et al. 2017. The 64 groups of the 3x3 convolutions have 4 channels each in res2.
"""

from ..common.resnet import model
from ..common.train import train

model.backbone.stages.depth = 101
model.backbone.stages.num_groups = 64
model.backbone.stages.width_per_group = 4

__all__ = ["model", "train"]
