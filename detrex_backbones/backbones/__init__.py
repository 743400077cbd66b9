"""Backbones: networks that turn images into named feature maps."""

from detrex_backbones.interop import register_with_detectron2
from detrex_backbones.lazy_exports import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__)

register_with_detectron2()
