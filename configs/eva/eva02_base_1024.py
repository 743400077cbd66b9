"""EVA-02-B for images of 1024 pixels (Fang et al. 2023), as in detrex's DINO."""

from ..common.eva02 import model
from ..common.train import train

__all__ = ["model", "train"]
