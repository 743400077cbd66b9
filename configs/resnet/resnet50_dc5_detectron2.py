"""ResNet-50-DC5, the detectron2 way.

Every block of res5 is dilated.
"""

from ..common.resnet import model
from ..common.train import train

model.backbone.stages.res5_dilation = 2
model.backbone.stages.dilation_style = "detectron2"

__all__ = ["model", "train"]
