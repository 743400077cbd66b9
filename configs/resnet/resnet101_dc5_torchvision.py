"""ResNet-101-DC5, the torchvision way.

The first block of res5 is not dilated: what DETR-DC5's weights want.
"""

from ..common.resnet import model
from ..common.train import train

model.backbone.stages.depth = 101
model.backbone.stages.res5_dilation = 2
model.backbone.stages.dilation_style = "torchvision"

__all__ = ["model", "train"]
