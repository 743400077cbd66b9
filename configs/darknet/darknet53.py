"""Darknet-53 of YOLOv3 (Redmon)."""

from detrex_backbones import FeatureExtractor, FrozenBatchNorm2d
from detrex_backbones.backbones.darknet import Darknet53
from detrex_backbones.config import LazyCall as L

from ..common.preprocessing import yolo_rgb
from ..common.train import train

model = L(FeatureExtractor)(
    backbone=L(Darknet53)(out_indices=(3, 4, 5), norm_layer=FrozenBatchNorm2d),
    **yolo_rgb,
)

__all__ = ["model", "train"]
