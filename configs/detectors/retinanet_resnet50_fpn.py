"""RetinaNet with an FPN over ResNet-50, from random weights."""

from ..common.retinanet_fpn import model
from ..common.train import train

model.backbone.bottom_up.stages.depth = 50
model.backbone.top_block.in_channels = 2048

__all__ = ["model", "train"]
