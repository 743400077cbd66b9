"""PVT-large (Wang et al. 2021): p0 to p3."""

from ..common.pvt import model
from ..common.train import train

model.backbone.num_layers = (3, 8, 27, 3)

__all__ = ["model", "train"]
