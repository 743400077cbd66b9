"""How fast a backbone is on this machine, and what it costs: torch's own timers, random weights."""

from __future__ import annotations

import ctypes
import gc
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from detrex_backbones.backbones.base import Backbone
from detrex_backbones.backbones.cost import Measures, measure
from detrex_backbones.backbones.images.extractor import FeatureExtractor
from detrex_backbones.backbones.images.tensors import read_image
from detrex_backbones.config import instantiate
from detrex_backbones.errors import ArgumentError, ConfigTypeError, DeviceError, closest
from detrex_backbones.kinds import kinds_checked
from detrex_backbones.zoo import build_on_meta, find_device
from detrex_backbones.zoo.meta_build import without_downloads

__all__ = ["Conditions", "Speed", "check_speed", "measure_speed"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SECONDS = 2.0  # that one network is run for, at the least
STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@kinds_checked
@dataclass(frozen=True)
class Conditions:
    """What speeds are measured under.

    Args:
        size: height and width of the images in pixels.
        batch_size: images at once.
        dtype: "float32", "bfloat16" or "float16".
        device: "cpu", "cuda"; "" for the GPU if there is one.
        compiled: through `torch.compile`.
        channels_last: weights and images in that memory format.
        fused: with batch norms folded into convolutions.
        seconds: to run a network for, at the least.
    """

    size: tuple[int, int] = (224, 224)
    batch_size: int = 1
    dtype: str = "float32"
    device: str = ""
    compiled: bool = False
    channels_last: bool = False
    fused: bool = False
    seconds: float = SECONDS


@dataclass(frozen=True)
class Speed:
    """The figures of one backbone.

    Args:
        name: as it was given.
        median: of a run, in milliseconds.
        p95: 95 of 100 runs take no longer, in milliseconds.
        images_per_second: of the median.
        memory: MiB that were held at the most for the network, its images and what it computes; None where the system
            doesn't tell.
        parameters: as of `backbones.cost.Measures`.
        gflops: for one image, as of `Measures`.
        runs: how many runs, or blocks of runs, were timed.
    """

    name: str
    median: float
    p95: float
    images_per_second: float
    memory: float | None
    parameters: int
    gflops: float
    runs: int


def measure_speed(
    name: str, cfg: DictConfig, conditions: Conditions | None = None, photos: Sequence[str | Path] = ()
) -> Speed:
    """Time a config's backbone with random weights; no weights are read or fetched.

    Args:
        name: for the result.
        cfg: with a `model` that is a FeatureExtractor or a Backbone. Not changed.
        conditions: None for one image of 224 x 224 pixels.
        photos: image files: the mean time of preprocessing and forward over them, one after the other, as OpenMMLab's
            model zoo measures. Reading them is left out. `size` and `batch_size` don't count then.

    Raises:
        ArgumentError: an unknown dtype, a number below 1.
        ConfigTypeError: the model is neither.
        InputError: the backbone can't run such images, or a photo can't be read.
        DeviceError: a device that isn't there or has too little memory.
    """
    conditions = conditions or Conditions()
    device, channels, costs = check_speed(cfg, conditions, photos)
    with _Peak(device) as peak:
        model = instantiate(without_downloads(cfg.model)).eval().to(device)
        try:
            times, images = _time(model, replace(conditions, device=str(device)), channels, photos)
        except torch.OutOfMemoryError as error:
            raise DeviceError(f"not enough memory for {conditions.batch_size} images at once of {name}.") from error
    ordered = sorted(times)
    median = ordered[len(ordered) // 2]
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return Speed(
        name=name,
        median=1e3 * median,
        p95=1e3 * p95,
        images_per_second=images / median,
        memory=peak.mebibytes,
        parameters=costs.parameters,
        gflops=round(costs.gflops, 3),
        runs=len(times),
    )


def check_speed(
    cfg: DictConfig, conditions: Conditions, photos: Sequence[str | Path] = ()
) -> tuple[torch.device, int, Measures]:
    """The device, the channels of an image, and the costs, all without weights; raises what `measure_speed` does."""
    if conditions.dtype not in DTYPES:
        raise ArgumentError(
            f"dtype={conditions.dtype!r} is not one of {', '.join(DTYPES)}.{closest(conditions.dtype, DTYPES)}"
        )
    if conditions.batch_size < 1:
        raise ArgumentError(f"batch_size={conditions.batch_size} is too small: at least 1.")
    device = find_device(conditions.device or OmegaConf.select(cfg, "train.device"))
    skeleton = build_on_meta(without_downloads(cfg.model))
    backbone = _backbone_of(skeleton)
    if photos and not isinstance(skeleton, FeatureExtractor):
        raise ConfigTypeError(f"model is a {type(skeleton).__name__}. Photos are run through a FeatureExtractor.")
    channels = len(skeleton.pixel_mean) if isinstance(skeleton, FeatureExtractor) else 3
    return device, channels, measure(backbone, conditions.size, channels)


def _backbone_of(model: Any) -> Backbone:
    backbone = getattr(model, "backbone", model)
    if not isinstance(backbone, Backbone):
        raise ConfigTypeError(f"model is a {type(model).__name__}. A Backbone, or a model with one, can be timed.")
    return backbone


def _time(model: Any, conditions: Conditions, channels: int, photos: Sequence[str | Path]) -> tuple[list[float], int]:
    """Seconds of each run, and the images of a run."""
    backbone = _backbone_of(model)
    if conditions.fused:
        backbone.fuse()
    dtype = DTYPES[conditions.dtype]
    backbone.to(dtype)
    if conditions.channels_last:
        backbone.to(memory_format=torch.channels_last)
    run: Callable[[Tensor], Any] = torch.compile(backbone) if conditions.compiled else backbone
    if photos:
        return _time_photos(model, run, dtype, photos), 1
    images = torch.randn(conditions.batch_size, channels, *conditions.size).to(conditions.device, dtype)
    if conditions.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    return _blocks(run, images, conditions.seconds), conditions.batch_size


def _blocks(run: Callable[[Tensor], Any], images: Tensor, seconds: float) -> list[float]:
    with torch.inference_mode():
        run(images)  # what is compiled, allocated or chosen once
        timer = _timer("run(images)", {"run": run, "images": images})
        return list(timer.blocked_autorange(min_run_time=seconds).times)


def _time_photos(
    model: FeatureExtractor, run: Callable[[Tensor], Any], dtype: torch.dtype, photos: Sequence[str | Path]
) -> list[float]:
    """The mean over all photos, which are held in memory one at a time."""
    total = 0.0
    with torch.inference_mode():
        for index, path in enumerate(photos):
            photo = read_image(path)
            names = {"run": run, "prepare": model.preprocess, "photo": photo, "dtype": dtype}
            timer = _timer("run(prepare([photo]).to(dtype))", names)
            if index == 0:
                timer.timeit(1)
            total += timer.timeit(1).times[0]
    return [total / len(photos)]


def _timer(statement: str, names: dict[str, Any]) -> Any:
    # Importing it looks for compilers, and says what it doesn't find.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils.benchmark import Timer

    return Timer(statement, globals=names, num_threads=torch.get_num_threads())


class _Peak:
    """The most memory that a device, or on a CPU this process, held inside, beyond what it held before."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.mebibytes: float | None = None
        self._before = 0

    def __enter__(self) -> _Peak:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        else:
            gc.collect()
            with suppress(OSError, AttributeError):  # glibc keeps what was freed, and gives it to the next network
                ctypes.CDLL(None).malloc_trim(0)
            with suppress(OSError):
                REFERENCES.write_text("5")  # Linux: the peak begins anew
                self._before = _kibibytes("VmRSS") * 1024
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            held = (
                torch.cuda.max_memory_allocated(self.device)
                if self.device.type == "cuda"
                else _kibibytes("VmHWM") * 1024
            )
            self.mebibytes = (held - self._before) / 2**20 if self._before or self.device.type == "cuda" else None


def _kibibytes(name: str) -> int:
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
