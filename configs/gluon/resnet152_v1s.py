"""Gluon's ResNet-152 v1s.

ResNet-C with a stem of twice the width.
"""

from ..common.resnet_deep_stem import model
from ..common.train import train

model.backbone.stages.depth = 152
model.backbone.stem.out_channels = 128
model.backbone.stages.in_channels = 128

__all__ = ["model", "train"]
