"""ResNet-50 with frozen norms and all four maps: what the configs beside it change a few numbers of."""

from detrex_backbones import BasicStem, FeatureExtractor, ResNet, make_stage
from detrex_backbones.config import LazyCall as L

from .preprocessing import imagenet_rgb

model = L(FeatureExtractor)(
    backbone=L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=L(make_stage)(depth=50, stride_in_1x1=False, norm="FrozenBN"),
        out_features=["res2", "res3", "res4", "res5"],
        freeze_at=1,
    ),
    **imagenet_rgb,
)
