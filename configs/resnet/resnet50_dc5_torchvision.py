"""ResNet-50-DC5, res5 at stride 16, the torchvision way: what DETR-DC5's weights want."""

from ..common.resnet import model
from ..common.train import train

model.backbone.stages.depth = 50
model.backbone.stages.res5_dilation = 2
model.backbone.stages.dilation_style = "torchvision"

__all__ = ["model", "train"]
