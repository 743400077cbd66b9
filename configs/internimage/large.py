"""InternImage-L (Wang et al. 2023), as in detrex's DINO."""

from ..common.internimage import model
from ..common.train import train

model.backbone.channels = 160
model.backbone.depths = [5, 5, 22, 5]
model.backbone.groups = [10, 20, 40, 80]
model.backbone.offset_scale = 2.0
model.backbone.post_norm = True
model.backbone.drop_path_rate = 0.0

__all__ = ["model", "train"]
