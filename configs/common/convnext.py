"""ConvNeXt-T as detrex's detectors take it: the configs beside it change a few numbers of it."""

from detrex_backbones import ConvNeXt, FeatureExtractor
from detrex_backbones.config import LazyCall as L

from .preprocessing import imagenet_rgb

model = L(FeatureExtractor)(
    backbone=L(ConvNeXt)(
        in_chans=3,
        depths=[3, 3, 9, 3],
        dims=[96, 192, 384, 768],
        drop_path_rate=0.0,
        layer_scale_init_value=1.0,
        out_indices=[1, 2, 3],
    ),
    **imagenet_rgb,
)
