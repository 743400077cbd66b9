"""Swapping a config's backbone, with what follows it rewired."""

from detrex_backbones.lazy_exports import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__)
