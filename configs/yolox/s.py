"""CSPDarknet of YOLOX-s (Ge et al. 2021): p2 to p4, of strides 8 to 32."""

from ..common.csp_darknet import model
from ..common.train import train

__all__ = ["model", "train"]
