"""Gluon's ResNet-18 v1b.

The standard ResNet, as torchvision has it: a 7x7 stem, strides in the 3x3 convolutions.
"""

from ..common.resnet import model
from ..common.train import train

model.backbone.stages.depth = 18

__all__ = ["model", "train"]
