"""EVA-02-B under a simple feature pyramid as in detrex's DINO: the configs beside it change a few numbers of it."""

from detrex_backbones import EVA02_ViT, FeatureExtractor, LastLevelMaxPool, SimpleFeaturePyramid
from detrex_backbones.config import LazyCall as L

from .preprocessing import imagenet_rgb

model = L(FeatureExtractor)(
    backbone=L(SimpleFeaturePyramid)(
        net=L(EVA02_ViT)(
            img_size=1024,
            patch_size=16,
            embed_dim=768,
            depth=12,
            num_heads=12,
            drop_path_rate=0.1,
            window_size=16,
            window_block_indexes=[0, 1, 3, 4, 6, 7, 9, 10],
            out_feature="last_feat",
        ),
        in_feature="${.net.out_feature}",
        out_channels=256,
        scale_factors=(2.0, 1.0, 0.5),
        top_block=L(LastLevelMaxPool)(),
        norm="LN",
        square_pad=1024,
    ),
    **imagenet_rgb,
)
