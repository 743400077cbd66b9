"""ViTDet's ViT-H (Li et al. 2022): p2 to p5."""

from ..common.train import train
from ..common.vitdet import model

model.backbone.net.update(embed_dim=1280, depth=32, num_heads=16, drop_path_rate=0.5)
# 7, 15, 23 and 31 see the whole map.
model.backbone.net.window_block_indexes = [index for index in range(32) if index % 8 != 7]

__all__ = ["model", "train"]
