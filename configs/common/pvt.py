"""PVT-tiny with all four maps: what the configs in pvt/ change a few numbers of."""

from detrex_backbones import FeatureExtractor, PyramidVisionTransformer
from detrex_backbones.config import LazyCall as L

from .preprocessing import imagenet_rgb

model = L(FeatureExtractor)(
    backbone=L(PyramidVisionTransformer)(
        embed_dims=64,
        num_layers=(2, 2, 2, 2),
        num_heads=(1, 2, 5, 8),
        drop_path_rate=0.1,
        out_indices=(0, 1, 2, 3),
    ),
    **imagenet_rgb,
)
