"""ResNet-50 (He et al. 2016)."""

from ..common.resnet import model
from ..common.train import train

__all__ = ["model", "train"]
