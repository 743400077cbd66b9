"""What features are of: the words that `features.json` and the metadata of every file of features carry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detrex_backbones.backbones.images.extractor import FeatureExtractor
from detrex_backbones.config import LazyConfig
from detrex_backbones.features.reading import Resize
from detrex_backbones.features.runner import hash_of_weights
from detrex_backbones.layers import ShapeSpec

__all__ = ["about_features", "as_metadata"]


def about_features(
    cfg: DictConfig,
    extractor: FeatureExtractor,
    shapes: Mapping[str, ShapeSpec],
    *,
    pool: bool = False,
    dtype: str = "float32",
    resize: Resize = None,
) -> dict[str, Any]:
    """Everything that changes the numbers of features.

    Args:
        cfg: of the model.
        extractor: the model, with its weights.
        shapes: of the maps that are kept.
        pool: whether they are means over the image.
        dtype: that the network computes in.
        resize: of the images.
    """
    return {
        "config": LazyConfig.to_yaml(cfg.model),
        "checkpoint": OmegaConf.select(cfg, "train.init_checkpoint", default="") or "",
        "weights": f"sha256:{hash_of_weights(extractor)}",
        "preprocessing": {
            "pixel_mean": extractor.pixel_mean.flatten().tolist(),
            "pixel_std": extractor.pixel_std.flatten().tolist(),
            "input_format": extractor.input_format,
        },
        "maps": {name: {"channels": shape.channels, "stride": shape.stride} for name, shape in shapes.items()},
        "pool": pool,
        "dtype": dtype,
        "resize": list(resize) if isinstance(resize, tuple) else resize,
    }


def as_metadata(about: Mapping[str, Any]) -> dict[str, str]:
    """The same as the metadata of a file, which is text: what isn't is written as JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()}
