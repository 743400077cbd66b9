"""A small set of images in COCO's format, made in seconds: shapes on backgrounds textured like photos."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from detrex_backbones.errors import ArgumentError

__all__ = ["CATEGORIES", "draw_scene", "make_scenes"]

CATEGORIES = ("disc", "square", "triangle", "star")
RECORD = "scenes.json"  # the arguments that a folder was made with
FINER = 2  # shapes are drawn at this many times the size and shrunk, for smooth edges
Array = np.ndarray[Any, Any]
Shape = dict[str, Any]


def make_scenes(folder: str, train: int = 400, test: int = 100, size: int = 128, seed: int = 0) -> Path:
    """Write `train/*.png`, `test/*.png`, `train.json` and `test.json`; nothing where the same are there already.

    The same arguments give the same pixels and boxes.

    Args:
        folder: where to; made if it isn't there.
        train: images to learn from.
        test: images to be judged by.
        size: height and width in pixels.
        seed: of the random numbers.

    Returns:
        The folder.

    Raises:
        ArgumentError: a number that is too small, or a folder that holds something else or can't be written.
    """
    wanted = {"train": train, "test": test, "size": size, "seed": seed}
    for name, least in (("train", 1), ("test", 1), ("size", 64), ("seed", 0)):
        if not isinstance(wanted[name], int) or wanted[name] < least:
            raise ArgumentError(f"scenes: {name}={wanted[name]!r} must be a whole number of at least {least}.")
    root = Path(folder)
    record = root / RECORD
    try:
        if record.is_file() and json.loads(record.read_text()) == wanted:
            return root
        if root.is_dir() and any(root.iterdir()) and not record.is_file():
            raise ArgumentError(f"the scenes' folder {folder!r} holds something else. Give an empty or a new one.")
        if root.is_dir():
            record.unlink(missing_ok=True)
        for index, split in enumerate(("train", "test")):
            _write_split(root, split, wanted[split], size, [seed, index])
        record.write_text(json.dumps(wanted))  # last: without it, the folder is not whole
    except (OSError, ValueError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"the scenes can't be written to {folder!r}: {error}.") from error
    return root


def draw_scene(size: int, random: np.random.Generator) -> tuple[Array, list[Shape]]:
    """One image (size, size, 3), uint8, and its shapes: category, polygon as [x, y, x, y, ...] in pixels."""
    background = _texture(size, random)
    canvas = Image.fromarray(background).resize((FINER * size, FINER * size), Image.Resampling.BILINEAR)
    shapes = list(_place(size, random))
    for shape in shapes:
        points = [FINER * value for value in shape["polygon"]]
        colour = random.integers(0, 256, 3)
        while np.abs(colour - background.mean((0, 1))).max() < 60:  # it should be seen
            colour = random.integers(0, 256, 3)
        ImageDraw.Draw(canvas).polygon(points, fill=tuple(int(value) for value in colour))
    small = np.asarray(canvas.resize((size, size), Image.Resampling.BOX)).astype(float)
    noise = random.normal(0, 6, small.shape)
    return np.clip(small + noise, 0, 255).astype(np.uint8), shapes


def _write_split(root: Path, split: str, count: int, size: int, seed: list[int]) -> None:
    images: list[Shape] = []
    annotations: list[Shape] = []
    shutil.rmtree(root / split, ignore_errors=True)
    (root / split).mkdir(parents=True)
    for number in range(1, count + 1):
        pixels, shapes = draw_scene(size, np.random.default_rng([*seed, number]))
        name = f"{number:06d}.png"
        Image.fromarray(pixels).save(root / split / name)
        images.append({"id": number, "file_name": name, "height": size, "width": size})
        for shape in shapes:
            annotations.append({"id": len(annotations) + 1, "image_id": number, "iscrowd": 0, **_annotation(shape)})
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(CATEGORIES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / f"{split}.json").write_text(json.dumps(content))


def _annotation(shape: Shape) -> dict[str, Any]:
    x, y = np.array(shape["polygon"][0::2]), np.array(shape["polygon"][1::2])
    left, top = float(x.min()), float(y.min())
    area = 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))
    return {
        "category_id": shape["category"] + 1,
        "bbox": [round(left, 2), round(top, 2), round(float(x.max()) - left, 2), round(float(y.max()) - top, 2)],
        "area": round(area, 2),
        "segmentation": [[round(value, 2) for value in shape["polygon"]]],
    }


def _texture(size: int, random: np.random.Generator) -> Array:
    """Noise of every scale, strongest in the coarse ones as in photos, in related colours, and a slope of light."""
    image = np.zeros((size, size, 3))
    cells = 2
    while cells <= size // 2:
        grey, colour = random.normal(size=(cells, cells, 1)), random.normal(size=(cells, cells, 3))
        octave = (grey + 0.4 * colour) / cells**0.8
        planes = [Image.fromarray(octave[..., channel].astype(np.float32)) for channel in range(3)]
        image += np.stack([np.asarray(plane.resize((size, size), Image.Resampling.BICUBIC)) for plane in planes], -1)
        cells *= 2
    direction = random.normal(size=2)
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    light = (direction[0] * y + direction[1] * x)[..., None]
    image = random.uniform(70, 185, 3) + 28 * image / image.std() + 25 * light
    pixels: Array = np.clip(image, 0, 255).astype(np.uint8)
    return pixels


def _place(size: int, random: np.random.Generator) -> Iterator[Shape]:
    """One to four shapes that hardly cover each other."""
    taken: list[tuple[float, float, float]] = []
    for _ in range(int(random.integers(1, 5))):
        for _ in range(20):
            radius = float(random.uniform(0.09, 0.22)) * size
            x, y = (float(random.uniform(radius, size - radius)) for _ in range(2))
            if all(math.hypot(x - other, y - down) > 0.9 * (radius + wide) for other, down, wide in taken):
                taken.append((x, y, radius))
                category = int(random.integers(len(CATEGORIES)))
                yield {"category": category, "polygon": _polygon(category, x, y, radius, random)}
                break


def _polygon(category: int, x: float, y: float, radius: float, random: np.random.Generator) -> list[float]:
    corners, inner = ((48, 1.0), (4, 1.0), (3, 1.0), (10, 0.42))[category]
    turn = float(random.uniform(0, 2 * math.pi))
    points: list[float] = []
    for corner in range(corners):
        angle, far = turn + 2 * math.pi * corner / corners, radius * (inner if corner % 2 else 1.0)
        points += [x + far * math.cos(angle), y + far * math.sin(angle)]
    return points
