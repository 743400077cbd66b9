"""Gluon's ResNet-152 v1c.

A stem of three 3x3 convolutions (He et al. 2019).
"""

from ..common.resnet_deep_stem import model
from ..common.train import train

model.backbone.stages.depth = 152

__all__ = ["model", "train"]
