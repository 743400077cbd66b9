"""Backbone of DEIMv2-X (Huang et al. 2025), DINOv3's ViT-S+/16: maps of strides 8, 16 and 32."""

from ..common.deimv2 import model
from ..common.train import train

model.backbone.name = "dinov3_vits16plus"
model.backbone.interaction_indexes = (5, 8, 11)
model.backbone.conv_inplane = 64
model.backbone.hidden_dim = 256

__all__ = ["model", "train"]
