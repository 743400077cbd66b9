"""ResNet-50 with a stem of three 3x3 convolutions: what ResNet-C, D, E and S and SENet-154 start from."""

from detrex_backbones import DeepStem
from detrex_backbones.config import LazyCall as L

from .resnet import model

model.backbone.stem = L(DeepStem)(in_channels=3, out_channels=64, norm="FrozenBN")

__all__ = ["model"]
