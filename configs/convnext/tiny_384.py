"""ConvNeXt-T (Liu et al. 2022), as in detrex's DINO."""

from ..common.convnext import model
from ..common.train import train

__all__ = ["model", "train"]
