"""Swin-L (Liu et al. 2021): p0 to p3."""

from ..common.swin import model
from ..common.train import train

model.backbone.update(embed_dim=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48))

__all__ = ["model", "train"]
