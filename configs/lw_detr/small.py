"""ViT of LW-DETR-small (Chen et al. 2024): four maps of stride 16."""

from ..common.lw_detr import model
from ..common.train import train

__all__ = ["model", "train"]
