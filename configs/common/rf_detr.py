"""RF-DETR's DINOv2-S in windows."""

from detrex_backbones import FeatureExtractor, WindowedDINOv2
from detrex_backbones.config import LazyCall as L

from .preprocessing import imagenet_rgb

model = L(FeatureExtractor)(
    backbone=L(WindowedDINOv2)(
        img_size=518,
        patch_size=14,
        embed_dim=384,
        depth=12,
        num_heads=6,
        num_windows=4,
        out_indices=(2, 5, 8, 11),
    ),
    **imagenet_rgb,
)
