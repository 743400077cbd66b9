"""ConvNeXt-S (Liu et al. 2022), as in detrex's DINO."""

from ..common.convnext import model
from ..common.train import train

model.backbone.depths = [3, 3, 27, 3]

__all__ = ["model", "train"]
