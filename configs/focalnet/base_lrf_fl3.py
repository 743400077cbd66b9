"""FocalNet-B (Yang et al. 2022), as in detrex's DINO."""

from ..common.focalnet import model
from ..common.train import train

model.backbone.embed_dim = 128
model.backbone.depths = (2, 2, 18, 2)

__all__ = ["model", "train"]
