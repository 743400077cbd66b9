"""Backbones: networks that turn images into named feature maps."""

from detrex_backbones.interop import register_with_detectron2

register_with_detectron2()
