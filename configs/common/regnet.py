"""RegNetX-3.2GF: the other RegNets name another model."""

from detrex_backbones import FeatureExtractor, FrozenBatchNorm2d, TimmBackbone
from detrex_backbones.config import LazyCall as L

from .preprocessing import caffe2_bgr

# BGR as pycls, which trained these networks, and OpenMMLab have it; timm's weights of the same names take RGB.
model = L(FeatureExtractor)(
    backbone=L(TimmBackbone)(model_name="regnetx_032", out_indices=(1, 2, 3, 4), norm_layer=FrozenBatchNorm2d),
    **caffe2_bgr,
)
