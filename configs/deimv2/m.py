"""Backbone of DEIMv2-M (Huang et al. 2025), a ViT-Tiny+ with rotary positions: maps of strides 8, 16 and 32."""

from ..common.deimv2 import model
from ..common.train import train

model.backbone.name = "vit_tinyplus"
model.backbone.hidden_dim = 256

__all__ = ["model", "train"]
