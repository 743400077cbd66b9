"""MViTv2-B (Li et al. 2022): scale2 to scale5."""

from ..common.mvit import model
from ..common.train import train

model.backbone.update(depth=24, last_block_indexes=(1, 4, 20, 23), drop_path_rate=0.4)

__all__ = ["model", "train"]
