"""Faster R-CNN with an FPN over ResNet-18, from random weights."""

from ..common.detection import data, optimizer, schedule, train
from ..common.faster_rcnn_fpn import model

__all__ = ["data", "model", "optimizer", "schedule", "train"]
