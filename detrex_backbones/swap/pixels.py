"""How images reach the new backbone: mean, standard deviation and channel order, in the model and in the data."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detrex_backbones.config.nodes import is_call
from detrex_backbones.named import NamedBackbone, keywords
from detrex_backbones.swap.rewire import Path, nodes_below

__all__ = ["pixel_edits"]

logger = logging.getLogger(__name__)

FORMAT_KEYS = ("image_format", "img_format")  # of detectron2's and detrex's dataset mappers


def pixel_edits(cfg: DictConfig, found: NamedBackbone) -> dict[Path, Any]:
    """Where the model has them and the number of channels is the same; the data's channel order follows the model's."""
    pixels = found.preprocessing
    if pixels is None:
        return {}
    mean = cfg.model.get("pixel_mean")
    if mean is not None and len(mean) != len(pixels.pixel_mean):
        logger.warning("model.pixel_mean has %d channels and stays as it is, with pixel_std", len(mean))
        return {}
    values = {
        "pixel_mean": list(pixels.pixel_mean),
        "pixel_std": list(pixels.pixel_std),
        "input_format": pixels.input_format,
    }
    takes = keywords(cfg.model) if is_call(cfg.model) else {}
    edits: dict[Path, Any] = {
        ("model", key): value
        for key, value in values.items()
        if key in cfg.model or (key in takes and (key != "input_format" or takes[key] != value))
    }
    if ("model", "pixel_mean") in edits:
        edits |= dict.fromkeys(_formats(cfg), pixels.input_format)
    return edits


def _formats(cfg: DictConfig) -> Iterator[Path]:
    """Where the dataloader's config says in which order images are read. Interpolations follow by themselves."""
    if "dataloader" not in cfg or OmegaConf.is_missing(cfg, "dataloader"):
        return
    for path, node in nodes_below(cfg.dataloader, ("dataloader",)):
        for key in FORMAT_KEYS:
            if key in node and not OmegaConf.is_interpolation(node, key) and not OmegaConf.is_missing(node, key):
                yield (*path, key)
