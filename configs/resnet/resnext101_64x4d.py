"""ResNeXt-101 64x4d (Xie 2017)."""

from ..common.resnet import model
from ..common.train import train

model.backbone.stages.depth = 101
model.backbone.stages.num_groups = 64
model.backbone.stages.width_per_group = 4

__all__ = ["model", "train"]
