"""VGG-16 of SSD (Liu et al. 2016)."""

from detrex_backbones import FeatureExtractor
from detrex_backbones.backbones.vgg import SSDVGG
from detrex_backbones.config import LazyCall as L

from ..common.preprocessing import ssd_rgb
from ..common.train import train

model = L(FeatureExtractor)(backbone=L(SSDVGG)(out_features=["conv4_3", "fc7"]), **ssd_rgb)

__all__ = ["model", "train"]
