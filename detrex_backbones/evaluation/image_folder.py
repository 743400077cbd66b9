"""A folder of images, one folder a class, as batches that are resized and cropped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from detrex_backbones.backbones.images.image_file import open_image
from detrex_backbones.checkpoint.fetch import Recipe
from detrex_backbones.errors import InputError, closest
from detrex_backbones.text import LONGEST_PATH, visible

__all__ = ["ImageFolder", "cut", "open_folder"]

INTERPOLATIONS = ("bilinear", "bicubic", "nearest")


def cut(image: Any, recipe: Recipe) -> Tensor:
    """Resize and crop as torchvision's and timm's presets do it: on the PIL image, antialiased.

    Args:
        image: a PIL image in RGB.
        recipe: the sizes.

    Returns:
        (3, crop, crop), uint8.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as transforms

    size = [recipe.resize, recipe.resize] if recipe.mode == "squash" else [recipe.resize]
    image = transforms.resize(image, size, interpolation=InterpolationMode(recipe.interpolation))
    return transforms.pil_to_tensor(transforms.center_crop(image, [recipe.crop, recipe.crop]))  # type: ignore[no-any-return]


def open_folder(
    root: str | Path, recipe: Recipe, classes: Sequence[str] | None = None, limit: int | None = None
) -> ImageFolder:
    """The images of a folder that holds one folder for each class.

    Which class a folder is: its line in `classes`, where given. Otherwise its name, if the names of all folders are
    whole numbers. Otherwise its place among all folders, sorted by name: right for ImageNet's thousand.

    Args:
        root: the folder.
        recipe: how images are cut.
        classes: names of folders in the order of the classifier's rows.
        limit: take this many, spread evenly; None for all.

    Raises:
        InputError: no folder, no images in it, a name that `classes` lacks.
    """
    from torchvision.datasets import ImageFolder as Files

    try:
        files = Files(str(root))
    except OSError as error:
        reason = visible(str(error).partition(". Supported")[0])
        raise InputError(
            f"--data '{visible(root, LONGEST_PATH)}' is not a folder with a folder of images for each class: {reason}."
        ) from error
    labels, note = _labels(files.classes, classes)
    samples = [(path, labels[index]) for path, index in files.samples]
    if limit is not None and limit < len(samples):
        samples = [samples[index * len(samples) // limit] for index in range(limit)]
    return ImageFolder(samples, recipe, f"{note}; {len(samples)} of {len(files.samples)} images")


class ImageFolder(Dataset[Any]):
    """Images with the indices of their classes.

    Args:
        samples: paths and labels.
        recipe: how images are cut.
        note: how the labels were found.
    """

    def __init__(self, samples: list[tuple[str, int]], recipe: Recipe, note: str) -> None:
        self.samples = samples
        self.recipe = recipe
        self.note = note

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Tensor | str:
        """The cut image, or what is wrong with it: an error that crosses processes loses its type."""
        path, _ = self.samples[index]
        try:
            with open_image(path) as image:
                return cut(image.convert("RGB"), self.recipe)
        except InputError as error:
            return str(error)

    def check_classes(self, num_classes: int) -> None:
        """Raise if a label has no row in the classifier."""
        high = max(label for _, label in self.samples)
        if high >= num_classes:
            raise InputError(
                f"the folder has a class {high}, the classifier has {num_classes}: 0 to {num_classes - 1}."
            )

    def batches(self, batch_size: int, workers: int) -> Iterator[tuple[list[int], Tensor]]:
        """Indices and images (N, 3, H, W), uint8, in order.

        Raises:
            InputError: an image that can't be read.
        """
        loader = DataLoader(self, batch_size=batch_size, num_workers=workers, collate_fn=list)
        start = 0
        for items in loader:
            wrong = [item for item in items if isinstance(item, str)]
            if wrong:
                raise InputError(wrong[0])
            yield list(range(start, start + len(items))), torch.stack(items)
            start += len(items)


def _labels(folders: Sequence[str], classes: Sequence[str] | None) -> tuple[list[int], str]:
    """The class of each folder, and a sentence on how it was found."""
    if classes is not None:
        place = {name: index for index, name in enumerate(classes)}
        missing = [name for name in folders if name not in place]
        if missing:
            raise InputError(f"--classes has no folder '{visible(missing[0])}'.{closest(missing[0], place)}")
        return [place[name] for name in folders], f"classes: {len(folders)} folders, by the list of {len(classes)}"
    if all(name.isdecimal() for name in folders):
        return [int(name) for name in folders], f"classes: {len(folders)} folders, by the numbers that they are called"
    return list(range(len(folders))), f"classes: {len(folders)} folders, in the order of their names"
