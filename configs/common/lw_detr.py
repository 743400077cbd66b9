"""The ViT of LW-DETR-small: what the configs in lw_detr/ change a number of."""

from detrex_backbones import FeatureExtractor, LWDETRViT
from detrex_backbones.config import LazyCall as L

from .preprocessing import imagenet_rgb

model = L(FeatureExtractor)(
    backbone=L(LWDETRViT)(
        embed_dim=192,
        depth=10,
        num_heads=12,
        window_block_indexes=(0, 1, 3, 6, 7, 9),
        out_feature_indexes=(2, 4, 5, 9),
    ),
    **imagenet_rgb,
)
