"""From photos to feature maps: normalise, pad, batch, run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex_backbones.backbones.base import Backbone
from detrex_backbones.backbones.declared import check_at_first_forward
from detrex_backbones.backbones.images.tensors import batch_to_tensor, image_to_tensor
from detrex_backbones.errors import ArgumentError, InputError
from detrex_backbones.kinds import kinds_checked
from detrex_backbones.layers import ShapeSpec, fuse_norms

__all__ = ["FeatureExtractor"]

INPUT_FORMATS = ("RGB", "BGR")


@kinds_checked
class FeatureExtractor(nn.Module):
    """A backbone together with the preprocessing that its weights were trained with.

    Images are always given in RGB, as files hold them; `input_format` says what the weights want. So a config that
    changes the weights changes nothing for whoever feeds the images. The backbone's first maps are held against its
    `output_shape()`: where they contradict each other, the first forward is an ArgumentError.

    Args:
        backbone: gives the maps; a Backbone, or any module that gives a dict of maps.
        pixel_mean: one number a channel, 0-255, in the order of `input_format`; subtracted.
        pixel_std: one number a channel, in the order of `input_format`; divided by.
        input_format: "RGB" or "BGR": the channel order that the weights were trained on.

    Raises:
        ArgumentError: lengths that differ, a zero in `pixel_std`, an unknown format.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self, backbone: Backbone, pixel_mean: Sequence[float], pixel_std: Sequence[float], input_format: str = "RGB"
    ) -> None:
        super().__init__()
        mean, std = _check_pixels("pixel_mean", pixel_mean), _check_pixels("pixel_std", pixel_std)
        if len(mean) != len(std):
            raise ArgumentError(f"pixel_mean={mean} and pixel_std={std} differ in length: one number for each channel.")
        if not all(value > 0 for value in std):
            raise ArgumentError(f"pixel_std={std} is divided by: every number must be above 0.")
        if input_format not in INPUT_FORMATS:
            raise ArgumentError(f"input_format={input_format!r} is not known. Allowed: 'RGB', 'BGR'.")
        if input_format == "BGR" and len(mean) != 3:
            raise ArgumentError(f"input_format='BGR' needs 3 channels, but pixel_mean={mean} has {len(mean)}.")
        self.backbone = backbone
        check_at_first_forward(backbone)
        self.input_format = input_format
        # Preprocessing belongs to the config, not to the checkpoint.
        self.register_buffer("pixel_mean", torch.tensor(mean).reshape(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std).reshape(-1, 1, 1), persistent=False)

    def forward(self, images: Any) -> dict[str, Tensor]:
        """Images, as `preprocess` takes them -> {name: map (N, C, H / stride, W / stride)}, padding included."""
        return self.backbone(self.preprocess(images))  # type: ignore[no-any-return]

    def preprocess(self, images: Any) -> Tensor:
        """Normalise, pad on the right and at the bottom with zeros, and batch.

        Args:
            images: a list of images of any sizes, one image, or a batch: tensor (N, C, H, W) or array (N, H, W, C).
                Each in RGB, 0-255, as `image_to_tensor` takes it.

        Returns:
            (N, C, H, W) on the device of the model, C in the order of `input_format`; H and W are those of the largest
            image, rounded up to the backbone's `size_divisibility`.

        Raises:
            InputError: for something that is no image, or no images at all.
        """
        if isinstance(images, Tensor) and images.dim() == 4 and images.shape[0] != 0:
            return self._pad(self._normalise(images, batch=True), *self._padded_size(*images.shape[-2:]))
        normalised = [self._normalise(image) for image in _as_list(images)]
        size = self._padded_size(
            max(image.shape[-2] for image in normalised), max(image.shape[-1] for image in normalised)
        )
        return torch.stack([self._pad(image, *size) for image in normalised])

    def fuse(self) -> FeatureExtractor:
        """Fold the backbone's batch norms, see `Backbone.fuse`; of another project's, those of our own convolutions."""
        fuse = getattr(self.backbone, "fuse", None)
        if callable(fuse):
            fuse()
        else:
            fuse_norms(self.backbone)
        return self

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of every map, see `Backbone.output_shape`.

        Raises:
            ArgumentError: the backbone is a module that doesn't state them.
        """
        if not hasattr(self.backbone, "output_shape"):
            name = type(self.backbone).__name__
            raise ArgumentError(f"{name} has no output_shape(). Derive it from detrex_backbones.Backbone and add one.")
        return self.backbone.output_shape()

    def _normalise(self, image: Any, batch: bool = False) -> Tensor:
        convert = batch_to_tensor if batch else image_to_tensor
        tensor = convert(image, channels=len(self.pixel_mean), device=self.pixel_mean.device)
        if self.input_format == "BGR":
            tensor = tensor.flip(-3)
        # In float32 whatever the model's dtype: half precision would round 0-255 away.
        return ((tensor - self.pixel_mean.float()) / self.pixel_std.float()).to(self.pixel_mean.dtype)

    @staticmethod
    def _pad(image: Tensor, height: int, width: int) -> Tensor:
        return F.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]))

    def _padded_size(self, height: int, width: int) -> tuple[int, int]:
        constraints = getattr(self.backbone, "padding_constraints", {})  # a module of another kind states none
        square = constraints.get("square_size", 0)
        if square > 0:
            if max(height, width) > square:
                raise InputError(f"an image of {height}x{width} pixels exceeds the backbone's square of {square}.")
            return square, square
        asked = (constraints.get("size_divisibility"), constraints.get("size_divisiblity"))  # as detectron2 spells it
        divisor = max(number or 0 for number in asked) or getattr(self.backbone, "size_divisibility", 0) or 1
        # In whole numbers, which an exporter can follow where it only has names for them.
        return (height + divisor - 1) // divisor * divisor, (width + divisor - 1) // divisor * divisor


def _as_list(images: Any) -> list[Any]:
    if isinstance(images, np.ndarray | Tensor):
        images = list(images) if images.ndim == 4 else [images]
    elif not isinstance(images, list | tuple):
        images = [images]
    if not len(images):
        raise InputError("there are no images in the list. Give at least one.")
    return list(images)


def _check_pixels(name: str, values: Sequence[float]) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{name}={values!r} is not a list of numbers, one for each channel.") from error
    if not numbers or not all(math.isfinite(number) for number in numbers):
        raise ArgumentError(f"{name}={numbers!r} takes one finite number for each channel.")
    return numbers
