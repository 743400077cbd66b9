"""Gluon's ResNet-50 v1e.

ResNet-D with a stem of twice the width. Gluon has no weights for it.
"""

from ..common.resnet_deep_stem import model
from ..common.train import train

model.backbone.stem.out_channels = 128
model.backbone.stages.in_channels = 128
model.backbone.stages.shortcut = "avg_pool"

__all__ = ["model", "train"]
