"""RegNetY-800MF (Radosavovic 2020)."""

from ..common.regnet import model
from ..common.train import train

model.backbone.model_name = "regnety_008"

__all__ = ["model", "train"]
