"""ViTDet's ViT-B (Li et al. 2022): p2 to p5."""

from ..common.train import train
from ..common.vitdet import model

__all__ = ["model", "train"]
