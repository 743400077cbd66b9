"""ViTDet's ViT-B and its pyramid: what the configs in vitdet/ change a few numbers of."""

from functools import partial

from torch import nn

from detrex_backbones import FeatureExtractor, SimpleFeaturePyramid, ViT
from detrex_backbones.config import LazyCall as L

from .preprocessing import imagenet_rgb

model = L(FeatureExtractor)(
    backbone=L(SimpleFeaturePyramid)(
        net=L(ViT)(
            img_size=1024,
            patch_size=16,
            embed_dim=768,
            depth=12,
            num_heads=12,
            drop_path_rate=0.1,
            window_size=14,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            window_block_indexes=[0, 1, 3, 4, 6, 7, 9, 10],  # 2, 5, 8 and 11 see the whole map
            use_rel_pos=True,
            out_feature="last_feat",
        ),
        in_feature="${.net.out_feature}",
        out_channels=256,
        scale_factors=(4.0, 2.0, 1.0, 0.5),
        norm="LN",
    ),
    **imagenet_rgb,
)
