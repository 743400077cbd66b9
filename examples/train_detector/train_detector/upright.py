"""The size of an image as viewers show it, from the beginning of its file."""

from __future__ import annotations

from pathlib import Path

from PIL import ExifTags

from detrex_backbones.backbones import open_image

__all__ = ["upright_size"]

LYING = (5, 6, 7, 8)  # EXIF orientations with rows and columns exchanged


def upright_size(path: Path) -> tuple[int, int]:
    """Height and width in pixels, after the turn that EXIF data asks for.

    Raises:
        InputError: the file is no image that can be read.
    """
    with open_image(path) as image:
        width, height = image.size
        try:
            lying = image.getexif().get(ExifTags.Base.Orientation) in LYING
        except Exception:  # broken EXIF data, without which viewers show it as it is stored
            lying = False
    return (width, height) if lying else (height, width)
