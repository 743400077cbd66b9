"""RegNetY-400MF (Radosavovic 2020)."""

from ..common.regnet import model
from ..common.train import train

model.backbone.model_name = "regnety_004"

__all__ = ["model", "train"]
