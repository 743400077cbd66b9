"""Gluon's SE-ResNeXt-101 64x4d.

ResNeXt (Xie et al. 2017) with squeeze-and-excitation (Hu et al. 2018).
"""

from ..common.resnet import model
from ..common.train import train

model.backbone.stages.depth = 101
model.backbone.stages.num_groups = 64
model.backbone.stages.width_per_group = 4
model.backbone.stages.se_reduction = 16

__all__ = ["model", "train"]
