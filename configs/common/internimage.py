"""InternImage-T as detrex's detectors take it: the configs beside it change a few numbers of it."""

from detrex_backbones import FeatureExtractor, InternImage
from detrex_backbones.config import LazyCall as L

from .preprocessing import imagenet_rgb

model = L(FeatureExtractor)(
    backbone=L(InternImage)(
        core_op="DCNv3",
        channels=64,
        depths=[4, 4, 18, 4],
        groups=[4, 8, 16, 32],
        drop_path_rate=0.1,
        layer_scale=1.0,
        offset_scale=1.0,
        post_norm=False,
        out_indices=(1, 2, 3),
    ),
    **imagenet_rgb,
)
