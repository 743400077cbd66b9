"""Swin-S (Liu et al. 2021): p0 to p3."""

from ..common.swin import model
from ..common.train import train

model.backbone.depths = (2, 2, 18, 2)

__all__ = ["model", "train"]
