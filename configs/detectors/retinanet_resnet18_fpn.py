"""RetinaNet with an FPN over ResNet-18, from random weights."""

from ..common.retinanet_fpn import model
from ..common.train import train

__all__ = ["model", "train"]
