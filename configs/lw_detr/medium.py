"""ViT of LW-DETR-medium (Chen et al. 2024): four maps of stride 16."""

from ..common.lw_detr import model
from ..common.train import train

model.backbone.embed_dim = 384

__all__ = ["model", "train"]
