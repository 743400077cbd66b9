"""InternImage-B (Wang et al. 2023), as in detrex's DINO."""

from ..common.internimage import model
from ..common.train import train

model.backbone.channels = 112
model.backbone.depths = [4, 4, 21, 4]
model.backbone.groups = [7, 14, 28, 56]
model.backbone.post_norm = True

__all__ = ["model", "train"]
