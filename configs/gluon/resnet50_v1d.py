"""Gluon's ResNet-50 v1d.

A stem of three 3x3 convolutions, and shortcuts that pool before they project (He et al. 2019).
"""

from ..common.resnet_deep_stem import model
from ..common.train import train

model.backbone.stages.shortcut = "avg_pool"

__all__ = ["model", "train"]
