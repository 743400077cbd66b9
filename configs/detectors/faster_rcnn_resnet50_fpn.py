"""Faster R-CNN with an FPN over ResNet-50, from random weights."""

from ..common.faster_rcnn_fpn import model
from ..common.train import train

model.backbone.bottom_up.stages.depth = 50

__all__ = ["model", "train"]
