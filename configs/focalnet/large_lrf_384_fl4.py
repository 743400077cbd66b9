"""FocalNet-L with four levels (Yang et al. 2022), as in detrex's DINO."""

from ..common.focalnet import model
from ..common.train import train

model.backbone.focal_levels = (4, 4, 4, 4)
model.backbone.embed_dim = 192
model.backbone.depths = (2, 2, 18, 2)
model.backbone.drop_path_rate = 0.3
model.backbone.use_conv_embed = True
model.backbone.use_postln = True
model.backbone.use_layerscale = True

__all__ = ["model", "train"]
