"""ResNet-34 (He et al. 2016)."""

from ..common.resnet import model
from ..common.train import train

model.backbone.stages.depth = 34

__all__ = ["model", "train"]
