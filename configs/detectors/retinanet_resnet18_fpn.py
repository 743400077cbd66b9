"""RetinaNet with an FPN over ResNet-18, from random weights."""

from ..common.detection import data, optimizer, schedule, train
from ..common.retinanet_fpn import model

__all__ = ["data", "model", "optimizer", "schedule", "train"]
