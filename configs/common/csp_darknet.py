"""YOLOX-s's CSPDarknet: what the configs in yolox/ change two numbers of."""

from detrex_backbones import CSPDarknet, FeatureExtractor
from detrex_backbones.config import LazyCall as L

from .preprocessing import yolox_bgr

model = L(FeatureExtractor)(
    backbone=L(CSPDarknet)(
        arch="P5",
        deepen_factor=0.33,
        widen_factor=0.5,
        out_indices=(2, 3, 4),
    ),
    **yolox_bgr,
)
