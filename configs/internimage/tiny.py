"""InternImage-T (Wang et al. 2023), as in detrex's DINO."""

from ..common.internimage import model
from ..common.train import train

__all__ = ["model", "train"]
