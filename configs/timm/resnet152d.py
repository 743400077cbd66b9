"""timm's ResNet-152-D: p1, p2, p3."""

from detrex_backbones import FeatureExtractor, FrozenBatchNorm2d, TimmBackbone
from detrex_backbones.config import LazyCall as L

from ..common.preprocessing import imagenet_rgb
from ..common.train import train

model = L(FeatureExtractor)(
    backbone=L(TimmBackbone)(model_name="resnet152d", out_indices=(1, 2, 3), norm_layer=FrozenBatchNorm2d),
    **imagenet_rgb,
)

__all__ = ["model", "train"]
