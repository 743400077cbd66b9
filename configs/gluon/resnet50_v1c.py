"""Gluon's ResNet-50 v1c.

A stem of three 3x3 convolutions (He et al. 2019).
"""

from ..common.resnet_deep_stem import model
from ..common.train import train

__all__ = ["model", "train"]
