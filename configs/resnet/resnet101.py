"""ResNet-101 (He et al. 2016)."""

from ..common.resnet import model
from ..common.train import train

model.backbone.stages.depth = 101

__all__ = ["model", "train"]
