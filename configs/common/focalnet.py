"""FocalNet-T (large receptive field, three levels) as detrex's detectors take it: the configs beside it change it."""

from detrex_backbones import FeatureExtractor, FocalNet
from detrex_backbones.config import LazyCall as L

from .preprocessing import imagenet_rgb

model = L(FeatureExtractor)(
    backbone=L(FocalNet)(
        embed_dim=96,
        depths=(2, 2, 6, 2),
        focal_levels=(3, 3, 3, 3),
        focal_windows=(3, 3, 3, 3),
        drop_path_rate=0.1,
        out_indices=(1, 2, 3),
    ),
    **imagenet_rgb,
)
