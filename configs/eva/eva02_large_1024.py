"""EVA-02-L for images of 1024 pixels (Fang et al. 2023), as in detrex's DINO."""

from ..common.eva02 import model
from ..common.train import train

model.backbone.net.embed_dim = 1024
model.backbone.net.depth = 24
model.backbone.net.num_heads = 16
model.backbone.net.drop_path_rate = 0.4
model.backbone.net.window_block_indexes = [index for index in range(24) if index % 6 != 5]

__all__ = ["model", "train"]
