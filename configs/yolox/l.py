"""CSPDarknet of YOLOX-l (Ge et al. 2021): p2 to p4, of strides 8 to 32."""

from ..common.csp_darknet import model
from ..common.train import train

model.backbone.deepen_factor = 1.0
model.backbone.widen_factor = 1.0

__all__ = ["model", "train"]
