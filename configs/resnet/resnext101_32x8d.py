"""ResNeXt-101 32x8d (Xie 2017)."""

from ..common.resnet import model
from ..common.train import train

model.backbone.stages.depth = 101
model.backbone.stages.num_groups = 32
model.backbone.stages.width_per_group = 8

__all__ = ["model", "train"]
