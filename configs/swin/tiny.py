"""Swin-T (Liu et al. 2021): p0 to p3."""

from ..common.swin import model
from ..common.train import train

__all__ = ["model", "train"]
