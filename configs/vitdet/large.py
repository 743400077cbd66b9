"""ViTDet's ViT-L (Li et al. 2022): p2 to p5."""

from ..common.train import train
from ..common.vitdet import model

model.backbone.net.update(embed_dim=1024, depth=24, num_heads=16, drop_path_rate=0.4)
# 5, 11, 17 and 23 see the whole map.
model.backbone.net.window_block_indexes = [index for index in range(24) if index % 6 != 5]

__all__ = ["model", "train"]
