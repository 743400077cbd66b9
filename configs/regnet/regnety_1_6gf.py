"""RegNetY-1.6GF (Radosavovic 2020)."""

from ..common.regnet import model
from ..common.train import train

model.backbone.model_name = "regnety_016"

__all__ = ["model", "train"]
