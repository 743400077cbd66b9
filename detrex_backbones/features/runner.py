"""Images through a backbone: batches of one padded size, maps cut to the image, vectors if they are wanted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detrex_backbones.backbones.base import check_names
from detrex_backbones.backbones.images.extractor import FeatureExtractor
from detrex_backbones.errors import ArgumentError, ConfigTypeError, DeviceError, closest
from detrex_backbones.kinds import kinds_checked
from detrex_backbones.layers import ShapeSpec

__all__ = ["DTYPES", "MapRunner", "check_dtype", "check_extractor", "hash_of_weights"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def check_extractor(model: Any) -> FeatureExtractor:
    """The model, if it is what images can be fed to.

    Raises:
        ConfigTypeError: it is something else.
    """
    if not isinstance(model, FeatureExtractor):
        raise ConfigTypeError(
            f"model is a {type(model).__name__}, which does not say how a photo is normalised. Wrap the backbone: "
            f"model = L(FeatureExtractor)(backbone=..., pixel_mean=[...], pixel_std=[...], input_format='RGB')."
        )
    return model


def check_dtype(dtype: str) -> None:
    """Raise for what is not one of `DTYPES`, with the closest."""
    if dtype not in DTYPES:
        raise ArgumentError(f"dtype={dtype!r} is not one of {', '.join(DTYPES)}.{closest(dtype, DTYPES)}")


def hash_of_weights(model: nn.Module) -> str:
    """sha256 of all parameters and buffers with their names, dtypes and shapes: the same for the same network."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@kinds_checked
class MapRunner:
    """What runs batches: a FeatureExtractor in evaluation mode, in a dtype, with the maps that are kept.

    Args:
        extractor: the model; its backbone is changed to the dtype.
        maps: names of the maps to keep; None for all.
        pool: keep the mean of each map over the image: a vector (C,).
        dtype: "float32", "bfloat16" or "float16": what the network computes in and the maps are kept in.

    Raises:
        ArgumentError: an unknown map or dtype, with the closest.
    """

    def __init__(
        self, extractor: FeatureExtractor, maps: Sequence[str] | None = None, pool: bool = False, dtype: str = "float32"
    ) -> None:
        check_dtype(dtype)
        shapes = extractor.output_shape()
        names = list(shapes) if maps is None else check_names("maps", list(maps), shapes)
        self.shapes: dict[str, ShapeSpec] = {name: shapes[name] for name in names}
        self.pool = pool
        self.extractor = extractor.eval()
        self.extractor.backbone.to(DTYPES[dtype])  # not the numbers of the preprocessing, which half precision rounds
        self._dtype = DTYPES[dtype]

    def prepare(self, image: Any) -> Tensor:
        """One image, normalised and padded as far as itself needs: (1, C, H, W). So its maps don't depend on others.

        Raises:
            InputError: the network can't take it.
        """
        return self.extractor.preprocess([image]).to(self._dtype)

    @torch.inference_mode()
    def run(self, batch: Tensor, sizes: Sequence[tuple[int, int]]) -> list[dict[str, Tensor]]:
        """The maps of each image, on the CPU.

        Args:
            batch: (N, C, H, W), of `prepare`.
            sizes: height and width of each image before it was padded.

        Returns:
            For each image name -> (C, ceil(height / stride), ceil(width / stride)), or (C,) with `pool`.

        Raises:
            DeviceError: not enough memory for the batch.
        """
        try:
            maps = self.extractor.backbone(batch)
        except torch.OutOfMemoryError as error:
            raise DeviceError(f"not enough memory for {len(batch)} images at once: lower --batch-size.") from error
        kept = {name: self._keep(maps[name], shape.stride, sizes) for name, shape in self.shapes.items()}
        return [{name: values[index] for name, values in kept.items()} for index in range(len(sizes))]

    def _keep(self, value: Tensor, stride: int | None, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        if value.dim() != 4:  # a classifier's scores
            return list(value.cpu())
        cut = [
            one[:, : -(-height // stride), : -(-width // stride)] if stride else one
            for one, (height, width) in zip(value, sizes, strict=True)
        ]
        if self.pool:
            return list(torch.stack([one.float().mean(dim=(1, 2)) for one in cut]).to(value.dtype).cpu())
        return [one.cpu().contiguous() for one in cut]
