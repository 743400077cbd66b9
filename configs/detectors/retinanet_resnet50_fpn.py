"""RetinaNet with an FPN over ResNet-50, from random weights."""

from ..common.detection import data, optimizer, schedule, train
from ..common.retinanet_fpn import model

model.backbone.bottom_up.stages.depth = 50
model.backbone.top_block.in_channels = 2048

__all__ = ["data", "model", "optimizer", "schedule", "train"]
