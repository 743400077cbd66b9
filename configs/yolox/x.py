"""CSPDarknet of YOLOX-x (Ge et al. 2021): p2 to p4, of strides 8 to 32."""

from ..common.csp_darknet import model
from ..common.train import train

model.backbone.deepen_factor = 1.33
model.backbone.widen_factor = 1.25

__all__ = ["model", "train"]
