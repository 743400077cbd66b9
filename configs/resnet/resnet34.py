"""ResNet-34 (He et al. 2016), as torchvision's: strides 4, 8, 16, 32."""

from ..common.resnet import model
from ..common.train import train

model.backbone.stages.depth = 34

__all__ = ["model", "train"]
