"""MViTv2-T with all four maps: what the configs in mvit/ change a few numbers of."""

from functools import partial

from torch import nn

from detrex_backbones import FeatureExtractor, MViT
from detrex_backbones.config import LazyCall as L

from .preprocessing import imagenet_rgb

model = L(FeatureExtractor)(
    backbone=L(MViT)(
        embed_dim=96,
        depth=10,
        num_heads=1,
        last_block_indexes=(0, 2, 7, 9),
        residual_pooling=True,
        drop_path_rate=0.2,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        out_features=("scale2", "scale3", "scale4", "scale5"),
    ),
    **imagenet_rgb,
)
