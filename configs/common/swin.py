"""Swin-T with all four maps: what the configs in swin/ change a few numbers of."""

from detrex_backbones import FeatureExtractor, SwinTransformer
from detrex_backbones.config import LazyCall as L

from .preprocessing import imagenet_rgb

model = L(FeatureExtractor)(
    backbone=L(SwinTransformer)(
        pretrain_img_size=224,
        embed_dim=96,
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        window_size=7,
        drop_path_rate=0.2,
        out_indices=(0, 1, 2, 3),
    ),
    **imagenet_rgb,
)
