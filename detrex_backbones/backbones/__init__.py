"""Backbones: networks that turn images into named feature maps."""

from detrex_backbones.backbones.images import image_to_tensor, read_image
from detrex_backbones.interop import register_with_detectron2

__all__ = ["image_to_tensor", "read_image"]

register_with_detectron2()
