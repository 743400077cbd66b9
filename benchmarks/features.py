"""Vectors of many images: beside a plain loop, beside the network alone, and how memory grows with their number."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image

from benchmarks.measure import Options, Rounds, Row, attempt, in_rounds, needs_gpu, peak_memory
from benchmarks.pairs import paired
from detrex_backbones.features import extract_features
from detrex_backbones.zoo import build_model, get_config

GROUP = "features"
OF_NETWORK = 0.9  # images a second, of those of the network alone
GROWTH = 1024  # bytes of memory for each further image: its name
IMAGES, SIZE, BATCH = 2000, (240, 320), 16
MANY, SMALL = 20_000, (64, 64)

BEFORE = """
from benchmarks.features import config, write_images
from detrex_backbones.features import extract_features
import tempfile, torch
torch.set_num_threads(1)
folder = tempfile.TemporaryDirectory()
write_images(folder.name + "/images", {count}, {size})
extract_features(config(), [folder.name + "/images/0.jpg"], folder.name + "/one", pool=True, workers=0)
"""
DURING = 'extract_features(config(), [folder.name + "/images"], folder.name + "/all", pool=True, workers=0)'


def rows(options: Options) -> Iterator[Row]:
    """Speed, then memory."""
    if options.device != "cpu":
        yield needs_gpu(GROUP, "features of a folder of images on a GPU", "at least 0.9 of the network alone")
        return
    what = f"vectors of {IMAGES:,} images, {SIZE[0]}x{SIZE[1]}, R-18"
    yield attempt(GROUP, what, functools.partial(_speed, what, options.rounds_or(3)))
    what = f"peak memory of {MANY:,} images, {SMALL[0]}x{SMALL[1]}, R-18, beside a tenth of them"
    yield attempt(GROUP, what, functools.partial(_memory, what))


def config() -> DictConfig:
    """A ResNet-18 with random weights."""
    return get_config("resnet/resnet18")


def write_images(folder: str | Path, count: int, size: tuple[int, int]) -> None:
    """JPEG files of a smooth pattern, each another one."""
    Path(folder).mkdir(parents=True)
    draw = np.random.default_rng(0)
    for index in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize(size[::-1], Image.Resampling.BICUBIC).save(Path(folder, f"{index}.jpg"), quality=90)


def _speed(what: str, rounds: Rounds) -> Row:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images", IMAGES, SIZE)
        model: Any = build_model(config()).eval()
        batch = torch.cat([model.preprocess([Image.open(folder / "images" / "0.jpg")])] * BATCH)
        runs = iter(range(1000))
        calls = {
            "ours": lambda: extract_features(config(), [folder / "images"], folder / str(next(runs)), pool=True),
            "plain loop": lambda: _loop(model, sorted((folder / "images").iterdir())),
            "network alone": lambda: _alone(model, batch),
        }
        times = in_rounds(calls, rounds, warmup=0)  # each takes a minute
        row = paired(GROUP, what, times, against=["network alone"], at_least=OF_NETWORK)
        if row.met is False:
            row.note = _beside_the_network(model, sorted((folder / "images").iterdir()))
    return row


def _beside_the_network(model: Any, paths: list[Path]) -> str:
    """What there is to do beside the network, in seconds of one core; the network alone has all of them."""
    begin = time.perf_counter()
    images = [Image.open(path).convert("RGB") for path in paths]
    read = time.perf_counter()
    for start in range(0, len(images), BATCH):
        model.preprocess(images[start : start + BATCH])
    done = time.perf_counter()
    return (
        f"reading the images takes {read - begin:.1f} s of one core, making batches of them {done - read:.1f} s; the "
        "rest is pooling, writing, and processes that read, where there are some"
    )


@torch.inference_mode()
def _loop(model: Any, paths: list[Path]) -> list[dict[str, torch.Tensor]]:
    """What one writes first: each image opened, run and pooled by itself."""
    return [
        {name: value.mean(dim=(2, 3)) for name, value in model([Image.open(path).convert("RGB")]).items()}
        for path in paths
    ]


@torch.inference_mode()
def _alone(model: Any, batch: torch.Tensor) -> None:
    for _ in range(IMAGES // BATCH):
        model.backbone(batch)


def _memory(what: str) -> Row:
    peaks = {
        name: peak_memory(BEFORE.format(count=count, size=SMALL), DURING)
        for name, count in (("ours", MANY), ("a tenth", MANY // 10))
    }
    more = (peaks["ours"] - peaks["a tenth"]) * 2**20 / (MANY - MANY // 10)
    target = f"at most {GROWTH} bytes for each further image"
    tenth = {"a tenth": peaks["a tenth"]}
    return Row(GROUP, what, "MiB", peaks["ours"], tenth, target, met=more <= GROWTH, rounds=1)
