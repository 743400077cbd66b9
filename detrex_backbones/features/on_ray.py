"""The same work as a class that Ray Data's `map_batches` takes: images as bytes in, vectors out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from detrex_backbones.errors import InputError
from detrex_backbones.features.reading import Resize, read_tensor
from detrex_backbones.features.runner import MapRunner, check_extractor
from detrex_backbones.zoo import build_for_maps
from detrex_backbones.zoo.whole_config import read_config

__all__ = ["ImageFeatures"]


class ImageFeatures:
    """Vectors of a batch of image files; it needs no Ray itself.

        images = ray.data.read_binary_files("photos", include_paths=True)
        images.map_batches(
            ImageFeatures,
            fn_constructor_kwargs={"config": "resnet/resnet50", "maps": ["res5"]},
            batch_size=32,
            concurrency=2,
        ).write_parquet("vectors")

    Args:
        config: a ready config's name, a timm/ model, a path, or the config itself. Without a checkpoint its random
            weights are the same in every worker.
        overrides: `key=value`.
        maps: names of the maps; None for all.
        device: "cpu", "cuda"; "" for the config's.
        dtype: "float32", "bfloat16" or "float16".
        resize: pixels of the shorter side, or height and width.
    """

    def __init__(
        self,
        config: str | DictConfig,
        overrides: Sequence[str] = (),
        maps: Sequence[str] | None = None,
        device: str = "",
        dtype: str = "float32",
        resize: Resize = None,
    ) -> None:
        cfg = read_config(config, overrides)
        if device:
            OmegaConf.update(cfg, "train.device", device, force_add=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # what no checkpoint fills is the same on every worker
            extractor = check_extractor(build_for_maps(cfg)[0])
        self.runner = MapRunner(extractor, maps, pool=True, dtype=dtype)
        self.resize = resize

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """{"bytes": contents of the files, ...} -> the other columns, a float32 matrix (N, C) for each map, "error".

        The vectors of an image that can't be read are NaN, and `error` says why; it is "" for the others.
        """
        files = list(batch["bytes"])
        errors = [""] * len(files)
        waiting: dict[tuple[int, ...], list[tuple[int, tuple[int, int], torch.Tensor]]] = defaultdict(list)
        for index, content in enumerate(files):
            try:
                tensor = read_tensor(bytes(content), self.resize)
                prepared = self.runner.prepare(tensor)
                waiting[tuple(prepared.shape)].append((index, (tensor.shape[-2], tensor.shape[-1]), prepared))
            except InputError as error:
                errors[index] = str(error)
        found: dict[str, Any] = {
            name: np.full((len(files), shape.channels), np.nan, np.float32)
            for name, shape in self.runner.shapes.items()
        }
        for same in waiting.values():
            maps = self.runner.run(torch.cat([tensor for *_, tensor in same]), [size for _, size, _ in same])
            for (index, *_), values in zip(same, maps, strict=True):
                for name, vector in values.items():
                    found[name][index] = vector.float().numpy()
        others = {name: values for name, values in batch.items() if name != "bytes"}
        return {**others, **found, "error": np.array(errors, dtype=object)}
