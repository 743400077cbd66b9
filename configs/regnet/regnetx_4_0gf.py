"""RegNetX-4.0GF (Radosavovic 2020)."""

from ..common.regnet import model
from ..common.train import train

model.backbone.model_name = "regnetx_040"

__all__ = ["model", "train"]
