"""Swin-B with windows of 12, trained on images of 384 pixels (Liu et al. 2021): p0 to p3."""

from ..common.swin import model
from ..common.train import train

model.backbone.update(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32))
model.backbone.update(pretrain_img_size=384, window_size=12)

__all__ = ["model", "train"]
