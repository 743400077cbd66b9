"""PVT-tiny (Wang et al. 2021): p0 to p3."""

from ..common.pvt import model
from ..common.train import train

__all__ = ["model", "train"]
