"""ResNeXt-50 32x4d (Xie 2017)."""

from ..common.resnet import model
from ..common.train import train

model.backbone.stages.num_groups = 32
model.backbone.stages.width_per_group = 4

__all__ = ["model", "train"]
