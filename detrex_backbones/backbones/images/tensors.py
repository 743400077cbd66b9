"""From what people hold in their hands as an image to a tensor of known layout and range."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from detrex_backbones.backbones.images.image_file import open_image, upright
from detrex_backbones.errors import InputError

__all__ = ["batch_to_tensor", "image_to_tensor", "read_image"]

DTYPES = "uint8 (0-255), uint16 (0-65535), float (0-255)"
LAYOUTS = "numpy arrays (H, W) or (H, W, C), tensors (H, W) or (C, H, W), PIL images"


def read_image(path: str | Path | BinaryIO) -> np.ndarray[Any, Any]:
    """Read an image file, turned upright as its EXIF data says; of several frames or pages the first.

    Warns of EXIF data and ancillary PNG chunks that can't be read, of frames that are left out, and of numbers that are
    scaled: whole ones beyond 16 bits, of which the least becomes 0 and the greatest 65535; floating-point ones from 0
    to 1, or beyond 0 to 255, of which the least becomes 0 and the greatest 255, NaN and infinite ones black and white.

    Args:
        path: a file of any format that Pillow reads; or the opened file itself.

    Returns:
        (H, W) or (H, W, C) array, uint8, uint16 for 16-bit files, or float32 from 0 to 255 for floating-point ones; C
        is RGB, RGBA or grey and alpha.

    Raises:
        InputError: for a file that is missing, is no image, or holds more pixels than `open_image` decodes.
    """
    with open_image(path) as image:
        stored = _stored_kind(image)
        shown = upright(image, str(path) if isinstance(path, str | Path) else "")
        if image.mode == "F":
            return _to_255_as_shown(np.array(shown))
        return _pil_to_array(shown) if stored is None else _to_16_bits(np.array(shown).view(stored))


def _stored_kind(image: Any) -> Any:
    """The dtype of a grey TIFF file's numbers where Pillow takes them for others of their size; None elsewhere."""
    tags = getattr(image, "tag_v2", {})  # SampleFormat (339): 1, the default, is unsigned, 2 signed
    sign, bits = tags.get(339, (1,))[0], tags.get(258, (1,))[0]
    return {("I", 1, 32): np.uint32, ("L", 2, 8): np.int8}.get((image.mode, sign, bits))


def image_to_tensor(image: Any, channels: int, device: torch.device | str = "cpu") -> Tensor:
    """One image as a float32 tensor (channels, H, W) in 0-255, on `device`.

    Grey images are repeated and alpha is dropped where three channels are wanted; 16-bit images are scaled to 0-255.

    Args:
        image: a numpy array (H, W) or (H, W, C), a tensor (H, W) or (C, H, W), or a PIL image; uint8 (0-255),
            uint16 (0-65535) or floating point (0-255).
        channels: how many the network takes.
        device: where the result is wanted.

    Raises:
        InputError: for another layout, dtype or number of channels, an empty image, or NaN in it.
    """
    if hasattr(image, "getbands"):  # PIL.Image.Image, without importing PIL for those who don't use it
        image = _pil_to_array(image)
    if isinstance(image, np.ndarray):
        if image.ndim not in (2, 3):
            raise InputError(f"an image array has shape {image.shape}. Allowed: {LAYOUTS}.")
        tensor = _array_to_tensor(image)
        tensor = tensor[..., None] if tensor.dim() == 2 else tensor
        tensor = tensor.permute(2, 0, 1)
    elif isinstance(image, Tensor):
        if image.dim() not in (2, 3):
            raise InputError(f"an image tensor has shape {tuple(image.shape)}. Allowed: {LAYOUTS}.")
        tensor = image[None] if image.dim() == 2 else image
    else:
        raise InputError(f"an image is a {type(image).__name__}. Allowed: {LAYOUTS}. A file: read_image(path).")
    return _finished(tensor, channels, device)


def batch_to_tensor(images: Tensor, channels: int, device: torch.device | str = "cpu") -> Tensor:
    """`image_to_tensor` of every image of a tensor (N, C, H, W), at once and in one tensor."""
    return _finished(images, channels, device)


def _finished(tensor: Tensor, channels: int, device: torch.device | str) -> Tensor:
    if tensor.numel() == 0:
        raise InputError(f"an image of shape {tuple(tensor.shape[-3:])} (channels, height, width) is empty.")
    tensor = _match_channels(tensor, channels)
    return _to_255(tensor.to(device))


def _array_to_tensor(image: np.ndarray[Any, Any]) -> Tensor:
    try:
        # Writable, or torch warns: what Pillow and memory maps give is not.
        return torch.from_numpy(np.require(image, requirements=["C", "W"]))
    except (TypeError, ValueError) as error:
        raise InputError(f"an image array has dtype {image.dtype}. Allowed: {DTYPES}.") from error


def _pil_to_array(image: Any) -> np.ndarray[Any, Any]:
    if image.mode == "P" and "transparency" in image.info:  # or Pillow warns, of what is no matter here
        image = image.convert("RGBA").convert("RGB")
    if image.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "1", "RGBX", "RGBa", "La"):
        image = image.convert({"1": "L", "La": "LA"}.get(image.mode, "RGB"))
    array = np.array(image)  # a copy: Pillow's own memory is read-only
    if image.mode == "I" or image.mode.startswith("I;16"):
        array = _to_16_bits(array)
    return array


def _to_16_bits(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Grey as uint16: Pillow may hold 16 bits in 32. What has more, or a sign, is scaled by its least and greatest."""
    low, high = int(array.min(initial=0)), int(array.max(initial=0))
    if low >= 0 and high <= 65535:
        return array.astype(np.uint16)
    low = int(array.min())
    warnings.warn(
        f"a grey image has whole numbers from {low} to {high}, which are no brightness of 16 bits: they are scaled to "
        f"0 to 65535. Convert it yourself where another scale is meant.",
        UserWarning,
        stacklevel=5,
    )
    return np.round((array.astype(np.float64) - low) / max(high - low, 1) * 65535).astype(np.uint16)


def _to_255_as_shown(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Grey as float32 from 0 to 255, of floating-point numbers of a file, which have a scale of their own."""
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    none = array.size - finite.size
    if low >= 0 and (1 < high <= 255 or high == 0) and not none:
        return array
    black, white = (0.0, 1.0) if low >= 0 and high <= 1 else (0.0, 255.0) if low >= 0 and high <= 255 else (low, high)
    also = f", and {none:,} that {'is' if none == 1 else 'are'} NaN or infinite" if none else ""
    warnings.warn(
        f"a grey image has floating-point numbers from {low:.6g} to {high:.6g}{also}: they are taken as brightness, "
        f"{black:.6g} as black and {white:.6g} as white (255). Convert it yourself where another scale is meant.",
        UserWarning,
        stacklevel=4,
    )
    scaled = (array.astype(np.float64) - black) / ((white - black) or 1) * 255
    return np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0).astype(np.float32)


def _match_channels(tensor: Tensor, channels: int) -> Tensor:
    given = tensor.shape[-3]
    if given == channels:
        return tensor
    if channels == 3 and given in (1, 2):  # grey, grey and alpha
        return tensor.narrow(-3, 0, 1).expand(*tensor.shape[:-3], 3, -1, -1)
    if channels == 3 and given == 4:  # RGBA
        return tensor.narrow(-3, 0, 3)
    hint = ""
    if tensor.shape[-1] in (1, channels):
        hint = " The last dimension fits: tensors are (C, H, W), numpy arrays (H, W, C)."
    elif tensor.shape[-2] in (1, channels):
        hint = " The first dimension fits: numpy arrays are (H, W, C), tensors (C, H, W)."
    raise InputError(
        f"an image has {given} channels, the network takes {channels} (as many as pixel_mean has entries).{hint}"
    )


def _to_255(tensor: Tensor) -> Tensor:
    if tensor.dtype == torch.uint8:
        return tensor.float()
    if tensor.dtype == torch.uint16:
        return tensor.float() / 257
    if not tensor.is_floating_point():
        raise InputError(f"an image has dtype {tensor.dtype}. Allowed: {DTYPES}.")
    tensor = tensor.float()
    # Looked at where it costs nothing: on a GPU it would wait for the device, and a graph has no values.
    if tensor.device.type == "cpu" and not torch.compiler.is_compiling():
        low, high = (bound.item() for bound in torch.aminmax(tensor))
        if not np.isfinite([low, high]).all():
            raise InputError("an image holds NaN or infinite values. Allowed: numbers from 0 to 255.")
        if low >= 0 and 0 < high <= 1:
            warnings.warn(
                "a floating-point image has no value above 1: images are taken as 0-255, so this one is almost black. "
                "Multiply it by 255.",
                UserWarning,
                stacklevel=5,
            )
    return tensor
