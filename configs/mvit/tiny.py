"""MViTv2-T (Li et al. 2022): scale2 to scale5."""

from ..common.mvit import model
from ..common.train import train

__all__ = ["model", "train"]
