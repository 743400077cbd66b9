"""From a config and any number of images to a folder of features: goes on where a killed run was."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from detrex_backbones.cache import lock_file
from detrex_backbones.checkpoint.report import LoadReport
from detrex_backbones.errors import ArgumentError, DetrexBackbonesError, InputError, closest
from detrex_backbones.features.about import about_features, as_metadata
from detrex_backbones.features.folder import claim
from detrex_backbones.features.reading import Resize, check_workers, load_images
from detrex_backbones.features.runner import MapRunner, check_dtype, check_extractor
from detrex_backbones.features.shards import FORMATS, Row, ShardWriter, import_parquet, list_shards
from detrex_backbones.features.sources import ImageSource, find_images
from detrex_backbones.kinds import kinds_checked
from detrex_backbones.remote import AnyPath, as_path
from detrex_backbones.text import LONGEST_PATH, counted, visible
from detrex_backbones.zoo import build_for_maps

__all__ = ["Extraction", "extract_features"]

SHARD_IMAGES = 1000
PENDING = 4  # batches' worth of images that wait for others of their size


@dataclass
class Extraction:
    """What a run did.

    Args:
        folder: where the features are.
        report: of the load of the weights; None for random ones.
        images: how many this process has to see to: all, or its share under torchrun.
        before: how many of them an earlier run had written.
        written: how many this run wrote.
        broken: name of an image that couldn't be read -> why.
        rank: number of this process under torchrun, from 0.
    """

    folder: AnyPath
    report: LoadReport | None
    images: int
    before: int = 0
    written: int = 0
    broken: dict[str, str] = field(default_factory=dict)
    rank: int = 0


@kinds_checked
def extract_features(
    cfg: DictConfig,
    sources: Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    maps: Sequence[str] | None = None,
    pool: bool = False,
    batch_size: int = 16,
    workers: int | None = None,
    device: str = "",
    dtype: str = "float32",
    resize: Resize = None,
    file_format: str = "safetensors",
    shard_images: int = SHARD_IMAGES,
) -> Extraction:
    """Run a config's model over images and write its maps, each image once, whatever interrupts it.

    Images of one padded size share a batch; each is padded as it would be alone, so its maps don't depend on the
    others'. Under `torchrun` every process takes its share of the images and a GPU of its own; they need not talk.

    Args:
        cfg: with a `model` that is a FeatureExtractor and `train` as of `build_model`. Not changed.
        sources: as of `find_images`.
        output: the folder, here or on remote storage (s3://bucket/folder); features that are there already, made in
            the same way, are kept and not computed again.
        maps: names of the maps to keep; None for all.
        pool: the mean of each map over the image, a vector, in its place.
        batch_size: images at a time.
        workers: processes that read images; 0 for none, None for one a CPU, up to eight, where reading takes time.
        device: "cpu", "cuda", "cuda:1"; "" for the config's `train.device`.
        dtype: "float32", "bfloat16" or "float16".
        resize: pixels of the shorter side, or height and width; None leaves images as they are.
        file_format: "safetensors", or "parquet" for vectors.
        shard_images: images of one file.

    Raises:
        ArgumentError: an argument that is not one of those allowed.
        InputError: sources without images, all of them broken, or a folder with features that were made otherwise.
        ConfigError: a config without a model that images can be fed to.
        CheckpointError: weights that can't be read or don't fit.
        DeviceError: a device that isn't there or has too little memory.
    """
    _check(batch_size, shard_images, file_format, pool, resize)
    check_dtype(dtype)
    check_workers(workers)
    images = find_images(sources)
    rank, ranks = _rank()
    cfg = cfg.copy()
    if device or ranks > 1:
        OmegaConf.update(cfg, "train.device", device or _own_device(), force_add=True)
    model, report = build_for_maps(cfg)
    runner = MapRunner(check_extractor(model), maps, pool, dtype)
    folder = as_path(output)
    about = about_features(cfg, runner.extractor, runner.shapes, pool=pool, dtype=dtype, resize=resize)
    with _alone(folder, rank):
        claim(folder, about)
        writer = ShardWriter(folder, rank, file_format, pool, as_metadata(about), shard_images)
        done = {name: path for entries in list_shards(folder).values() for name, _, _, path in entries}
        share = [image.beside(done) for image in images[rank::ranks]]
        left = [image for image in share if image.name not in done]
        result = Extraction(folder, report, len(share), before=len(share) - len(left), rank=rank)
        loaded = load_images(left, resize, workers, batch_size)
        try:
            _run(_shown(loaded, result), runner, writer, batch_size, result)
        finally:  # an interruption keeps what is finished
            writer.flush()
    if result.broken and not result.before + result.written:
        raise InputError(
            f"none of {counted(len(result.broken), 'image')} can be read: {next(iter(result.broken.values()))}"
        )
    return result


def _run(
    loaded: Iterable[tuple[ImageSource, Tensor | str]],
    runner: MapRunner,
    writer: ShardWriter,
    batch_size: int,
    result: Extraction,
) -> None:
    waiting: dict[tuple[int, ...], list[tuple[ImageSource, tuple[int, int], Tensor]]] = defaultdict(list)

    def run(key: tuple[int, ...]) -> None:
        batch = waiting.pop(key)
        sizes = [size for _, size, _ in batch]
        found = runner.run(torch.cat([tensor for *_, tensor in batch]), sizes)
        writer.add(Row(image, size, maps) for (image, size, _), maps in zip(batch, found, strict=True))
        result.written += len(batch)

    for image, tensor in loaded:
        if isinstance(tensor, str):
            result.broken[image.name] = tensor
            continue
        try:
            prepared = runner.prepare(tensor)
        except InputError as error:
            result.broken[image.name] = str(error)
            continue
        height, width = tensor.shape[-2:]
        key = tuple(prepared.shape)
        waiting[key].append((image, (height, width), prepared))
        if len(waiting[key]) >= batch_size:
            run(key)
        elif sum(map(len, waiting.values())) >= PENDING * batch_size:  # sizes that are all different
            run(max(waiting, key=lambda size: len(waiting[size])))
    for key in list(waiting):
        run(key)


def _shown(loaded: Iterable[Any], result: Extraction) -> Iterator[Any]:
    """The same, with a progress bar where there is a terminal."""
    from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

    hidden = True if result.rank else None
    with tqdm(total=result.images, initial=result.before, unit=" images", disable=hidden, smoothing=0.05) as bar:
        for item in loaded:
            yield item
            bar.update()


def _check(batch_size: int, shard_images: int, file_format: str, pool: bool, resize: Resize) -> None:
    sides = () if resize is None else (resize,) if isinstance(resize, int) else resize
    for name, value in (
        ("batch_size", batch_size),
        ("shard_images", shard_images),
        *(("resize", side) for side in sides),
    ):
        if value < 1:
            raise ArgumentError(f"{name}={value} is too small: at least 1.")
    if file_format not in FORMATS:
        raise ArgumentError(f"the format {file_format!r} is not known.{closest(file_format, FORMATS)} {list(FORMATS)}")
    if file_format == "parquet" and not pool:
        raise ArgumentError("Parquet is for vectors: --pool, or leave --format safetensors.")
    if file_format == "parquet":
        import_parquet()  # whose absence is said before the work


def _rank() -> tuple[int, int]:
    """Number of this process and how many there are, as torchrun says."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def _own_device() -> str:
    """A GPU for each process of a machine."""
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"


@contextmanager
def _alone(folder: AnyPath, rank: int) -> Iterator[None]:
    """The folder, made if it isn't there, and no other run of the same rank in it."""
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = f".rank-{rank:05d}.lock"  # remote storage has none: there it holds for this machine
        with FileLock(folder / lock if isinstance(folder, Path) else lock_file(f"{folder / lock}"), timeout=0):
            yield
    except Timeout:
        raise DetrexBackbonesError(
            f"another run is writing into '{visible(folder, LONGEST_PATH)}'. Wait for it, or give another --output."
        ) from None
    except OSError as error:
        raise DetrexBackbonesError(
            f"--output '{visible(folder, LONGEST_PATH)}' can't be used as a folder: {visible(error.strerror or error)}."
        ) from error
