"""Faster R-CNN with an FPN over ResNet-50, from random weights."""

from ..common.detection import data, optimizer, schedule, train
from ..common.faster_rcnn_fpn import model

model.backbone.bottom_up.stages.depth = 50

__all__ = ["data", "model", "optimizer", "schedule", "train"]
