"""The backbone of DEIMv2-S: what the configs in deimv2/ change a number of."""

from detrex_backbones import DINOv3STAs, FeatureExtractor
from detrex_backbones.config import LazyCall as L

from .preprocessing import imagenet_rgb

model = L(FeatureExtractor)(
    backbone=L(DINOv3STAs)(
        name="vit_tiny",
        interaction_indexes=(3, 7, 11),
        conv_inplane=16,
        hidden_dim=192,
        norm="BN",
    ),
    **imagenet_rgb,
)
