"""ConvNeXt-L (Liu et al. 2022), as in detrex's DINO."""

from ..common.convnext import model
from ..common.train import train

model.backbone.depths = [3, 3, 27, 3]
model.backbone.dims = [192, 384, 768, 1536]

__all__ = ["model", "train"]
