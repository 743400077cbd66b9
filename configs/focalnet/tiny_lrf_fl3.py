"""FocalNet-T (Yang et al. 2022), as in detrex's DINO."""

from ..common.focalnet import model
from ..common.train import train

__all__ = ["model", "train"]
