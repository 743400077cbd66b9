"""CSPDarknet of YOLOX-m (Ge et al. 2021): p2 to p4, of strides 8 to 32."""

from ..common.csp_darknet import model
from ..common.train import train

model.backbone.deepen_factor = 0.67
model.backbone.widen_factor = 0.75

__all__ = ["model", "train"]
