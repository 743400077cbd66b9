"""Images and boxes from a COCO-format file, and which of them each process gets at which step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from detrex_backbones.backbones import image_to_tensor, read_image
from detrex_backbones.errors import ArgumentError, InputError
from train_detector.coco_file import first_few, read_coco
from train_detector.upright import upright_size

__all__ = ["CocoDetection", "StepSampler", "collate"]

Target = dict[str, Any]
Draw = tuple[int, int]  # index of the image, and how many images were drawn before it in the whole run


class CocoDetection(Dataset[tuple[Tensor, Target]]):
    """Images with their boxes, as torchvision's detectors take them.

    An item is an image (3, H, W), RGB, 0 to 1, and a dict: `boxes` (N, 4) as x1, y1, x2, y2 in pixels, `labels` (N,)
    from 1 on in the order of the categories' ids, `image_id`. Crowds and boxes without an area are left out.

    Args:
        images: the folder.
        annotations: the JSON file, see https://cocodataset.org/#format-data.
        flip: how often an image is mirrored, 0 to 1.
        seed: of the mirroring.

    Raises:
        InputError: a file that is missing or is not in COCO's format, a folder that is missing; of an item, an image
            that is missing or whose size contradicts its entry.
        ArgumentError: a `flip` that is no share.
    """

    def __init__(self, images: str, annotations: str, flip: float = 0.0, seed: int = 0) -> None:
        if not 0 <= flip <= 1:
            raise ArgumentError(f"flip={flip!r} is a share of the images: 0 to 1.")
        self.folder = Path(images)
        if not self.folder.is_dir():
            raise InputError(f"the images' folder {images!r} does not exist. Set data.*.images.")
        self.coco = read_coco(annotations)
        self.flip, self.seed = flip, seed
        self.image_ids: list[int] = sorted(self.coco.imgs)
        self.category_ids: list[int] = sorted(self.coco.cats)
        self.names: list[str] = [self.coco.cats[key]["name"] for key in self.category_ids]

    def check_images(self) -> None:
        """Look at the beginning of every image file.

        Raises:
            InputError: images that are missing, can't be read, or have another size than the annotations say.
        """
        with ThreadPoolExecutor() as pool:  # waiting for a network's disk goes side by side
            wrong = [text for text in pool.map(self._wrong_with, self.image_ids) if text]
        if wrong:
            count = f"{len(wrong)} of {len(self)} images"
            raise InputError(f"{count} in {str(self.folder)!r} can't be used: {first_few(wrong)}.")

    def _wrong_with(self, image_id: int) -> str:
        entry = self.coco.imgs[image_id]
        path, name = self.folder / entry["file_name"], repr(entry["file_name"])
        if not path.is_file():
            return f"{name} is missing"
        try:
            return _contradiction(entry, *upright_size(path))
        except (OSError, SyntaxError, ValueError) as error:
            return f"{name} is no image ({type(error).__name__})"

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, draw: int | Draw) -> tuple[Tensor, Target]:
        index, drawn = draw if isinstance(draw, tuple) else (draw, None)
        image_id = self.image_ids[index]
        image = image_to_tensor(read_image(self.folder / self.coco.imgs[image_id]["file_name"]), 3) / 255
        height, width = image.shape[-2:]
        wrong = _contradiction(self.coco.imgs[image_id], height, width)
        if wrong:
            raise InputError(f"{wrong}.")
        boxes, labels = self._boxes(image_id, height, width)
        # Numbers of its own for each draw: the same however many processes and workers share them.
        if drawn is not None and np.random.default_rng([self.seed, drawn]).random() < self.flip:
            image = image.flip(-1)
            boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)
        return image, {"boxes": boxes, "labels": labels, "image_id": image_id}

    def _boxes(self, image_id: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        entries = [entry for entry in self.coco.imgToAnns[image_id] if not entry.get("iscrowd", 0)]
        boxes = torch.tensor([entry["bbox"] for entry in entries], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes[:, 0::2].clamp_(0, width)
        boxes[:, 1::2].clamp_(0, height)
        labels = torch.tensor([self.category_ids.index(entry["category_id"]) + 1 for entry in entries])
        good = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        return boxes[good], labels.to(torch.int64)[good]


def _contradiction(entry: dict[str, Any], height: int, width: int) -> str:
    """How an image of this size contradicts what the annotations say of it, "" where it doesn't."""
    said = entry.get("height") or height, entry.get("width") or width
    if said == (height, width):
        return ""
    turned = ", turned as its EXIF data says" if said == (width, height) else ""
    return (
        f"{entry['file_name']!r} is {height} x {width} pixels (height x width{turned}), its entry says {said[0]} x "
        f"{said[1]}: boxes would lie elsewhere"
    )


class StepSampler(Sampler[list[Draw]]):
    """Which images each step takes: a stream of shuffled epochs, cut into steps and each step into processes.

    The images of a step depend on nothing but the seed and the number of the step, so that a run that goes on at a
    step takes what the uninterrupted one would have taken, and several processes together take what one would have.

    Args:
        length: of the dataset.
        total_batch_size: images of a step, over all processes.
        steps: of the whole run.
        start: the first step.
        seed: of the shuffling.
        rank: which process this is.
        world: how many there are.

    Raises:
        ArgumentError: a batch that can't be divided among the processes, or no images.
    """

    def __init__(
        self,
        length: int,
        total_batch_size: int,
        steps: int,
        start: int = 0,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if length < 1:
            raise ArgumentError("the data set has no images.")
        if total_batch_size < 1 or total_batch_size % world:
            raise ArgumentError(
                f"data.total_batch_size={total_batch_size} is to be divided among {world} processes: give a multiple."
            )
        self.length, self.total, self.steps, self.start, self.seed = length, total_batch_size, steps, start, seed
        self.rank, self.share = rank, total_batch_size // world
        self._epoch, self._order = -1, np.empty(0, dtype=int)

    def __len__(self) -> int:
        return max(0, self.steps - self.start)

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in range(self.start, self.steps):
            first = step * self.total + self.rank * self.share
            yield [(self._index(drawn), drawn) for drawn in range(first, first + self.share)]

    def _index(self, drawn: int) -> int:
        epoch, place = divmod(drawn, self.length)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
        return int(self._order[place])


def collate(items: Sequence[tuple[Tensor, Target]]) -> tuple[list[Tensor], list[Target]]:
    """Images and targets as lists: their sizes differ."""
    images, targets = zip(*items, strict=True)
    return list(images), list(targets)
