"""Backbone of DEIMv2-S (Huang et al. 2025), a ViT-Tiny with rotary positions: maps of strides 8, 16 and 32."""

from ..common.deimv2 import model
from ..common.train import train

__all__ = ["model", "train"]
