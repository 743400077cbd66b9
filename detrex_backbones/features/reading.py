"""Images as tensors, read by other processes while the network runs, or by this one where that is quicker."""

from __future__ import annotations

import io
import math
import os
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from detrex_backbones.backbones.images.tensors import read_image
from detrex_backbones.errors import ArgumentError, CheckpointFileError, DeviceError, InputError
from detrex_backbones.features.sources import ImageSource, is_url

__all__ = ["Resize", "check_workers", "load_images", "local_file", "read_tensor"]

Resize = int | tuple[int, int] | None
"""Pixels of the shorter side, or height and width, or None for the image's own."""

SHARE = 0.05  # of the time of whoever takes the images: where reading takes less, processes cost more than they save
LONG = 1.0  # seconds of reading, after which nothing more is waited for


def read_tensor(source: str | bytes, resize: Resize = None) -> Tensor:
    """One image as a tensor (C, H, W), uint8 or, where the file has 16 bits, float32; 0-255.

    Args:
        source: a path, a URL, or the bytes of a file.
        resize: see `Resize`; bilinear, with antialiasing.

    Raises:
        InputError: it can't be read.
    """
    array = read_image(io.BytesIO(source) if isinstance(source, bytes) else local_file(source))
    tensor = torch.from_numpy(array.astype(np.float32) / 257 if array.dtype == np.uint16 else array)
    tensor = tensor[None] if tensor.dim() == 2 else tensor.permute(2, 0, 1)
    if resize is not None:
        size = _size(tensor.shape[-2:], resize)
        tensor = F.interpolate(tensor[None], size, mode="bilinear", antialias=True)[0]
    return tensor.contiguous()


def load_images(
    images: Sequence[ImageSource], resize: Resize, workers: int | None, batch_size: int
) -> Iterator[tuple[ImageSource, Tensor | str]]:
    """Every image in order, or what is wrong with it.

    Args:
        images: which.
        resize: as of `read_tensor`.
        workers: processes that read; 0 for this one, None for one a CPU, eight at the most, as soon as reading holds
            up whoever takes the images.
        batch_size: of the network: fewer images than that are read by this process.

    Raises:
        ArgumentError: a negative number of workers.
        DeviceError: a process that reads died.
    """
    if workers is None and len(images) <= batch_size:
        workers = 0
    check_workers(workers)
    dataset, start = _Images(images, resize), 0
    if workers is None:
        start = yield from _read_here(dataset, batch_size)
        workers = min(8, os.cpu_count() or 1)
    left = range(start, len(images))
    if not left:
        return
    loader = DataLoader(Subset(dataset, left), batch_size=None, num_workers=workers)
    try:
        yield from zip(images[start:], loader, strict=True)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DeviceError(
            "a process that reads images was ended, as the system does where memory is short. What was written is "
            "kept: run it again with fewer --workers to go on."
        ) from error


def _read_here(dataset: _Images, batch_size: int) -> Generator[tuple[ImageSource, Tensor | str], None, int]:
    """Images that this process reads, until that takes a share of the time of whoever takes them.

    Returns:
        How many they are.
    """
    reading = waiting = 0.0
    for index, image in enumerate(dataset.images):
        begin = time.perf_counter()
        tensor = dataset[index]
        read = time.perf_counter()
        yield image, tensor
        waiting += time.perf_counter() - read
        reading += read - begin if index else 0.0  # the first one waits for what is imported to read it
        # After two batches the network has run once, even if some images are broken.
        if reading > SHARE * waiting and (index + 1 >= 2 * batch_size or reading > LONG):
            return index + 1
    return len(dataset)


def check_workers(workers: int | None) -> None:
    """Raise for a negative number."""
    if workers is not None and workers < 0:
        raise ArgumentError(f"workers={workers} is too small: 0 reads images in this process.")


class _Images(Dataset[Any]):
    def __init__(self, images: Sequence[ImageSource], resize: Resize) -> None:
        self.images = images
        self.resize = resize

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor | str:
        try:
            return read_tensor(self.images[index].path, self.resize)
        except (InputError, CheckpointFileError, MemoryError) as error:  # which would lose its type between processes
            return str(error) or "there is not enough memory for it"


def local_file(path: str) -> str:
    """The file of a path or of a URL, which is fetched into the cache.

    Raises:
        CheckpointFileError: it can't be fetched.
    """
    if not is_url(path):
        return path
    from detrex_backbones.checkpoint.fetch import fetch_image

    return str(fetch_image(path))


def _size(size: Sequence[int], resize: int | tuple[int, int]) -> tuple[int, int]:
    if not isinstance(resize, int):
        return resize
    scale = resize / min(size)
    height, width = (max(1, math.floor(side * scale + 0.5)) for side in size)
    return height, width
