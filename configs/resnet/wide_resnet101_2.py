"""Wide ResNet-101-2 (Zagoruyko 2016)."""

from ..common.resnet import model
from ..common.train import train

model.backbone.stages.depth = 101
model.backbone.stages.width_per_group = 128

__all__ = ["model", "train"]
