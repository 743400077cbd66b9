"""DINOv2-S in windows, as in RF-DETR-B (Robinson et al. 2025): four maps of stride 14."""

from ..common.rf_detr import model
from ..common.train import train

__all__ = ["model", "train"]
