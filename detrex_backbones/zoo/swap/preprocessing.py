"""How images reach the new backbone: mean, standard deviation and channel order, in the model and in the data."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detrex_backbones.config.nodes import is_call
from detrex_backbones.errors import ArgumentError
from detrex_backbones.zoo.backbone_names import NamedBackbone, keywords
from detrex_backbones.zoo.swap.rewire import Path, nodes_below

__all__ = ["preprocessing_edits"]

logger = logging.getLogger(__name__)

FORMAT_KEYS = ("image_format", "img_format")  # of detectron2's and detrex's dataset mappers


def preprocessing_edits(cfg: DictConfig, found: NamedBackbone, *, has_fpn: bool = False) -> dict[Path, Any]:
    """Where the model has them and the number of channels is the same; the data's channel order follows the model's.

    `has_fpn` says that the backbone stands in an FPN, at `model.backbone`.

    Raises:
        ArgumentError: weights that want BGR in a torchvision detector that has nothing to turn the channels round.
    """
    wanted = found.preprocessing
    if wanted is None:
        return {}
    if is_call(cfg.model) and "image_mean" in keywords(cfg.model):
        return _torchvision_edits(cfg, found, has_fpn)
    mean = cfg.model.get("pixel_mean")
    if mean is not None and len(mean) != len(wanted.pixel_mean):
        logger.warning("model.pixel_mean has %d channels and stays as it is, with pixel_std", len(mean))
        return {}
    values = {
        "pixel_mean": list(wanted.pixel_mean),
        "pixel_std": list(wanted.pixel_std),
        "input_format": wanted.input_format,
    }
    takes = keywords(cfg.model) if is_call(cfg.model) else {}
    edits: dict[Path, Any] = {
        ("model", key): value
        for key, value in values.items()
        if key in cfg.model or (key in takes and (key != "input_format" or takes[key] != value))
    }
    if ("model", "pixel_mean") in edits:
        edits |= dict.fromkeys(_formats(cfg), wanted.input_format)
    return edits


def _torchvision_edits(cfg: DictConfig, found: NamedBackbone, has_fpn: bool) -> dict[Path, Any]:
    """torchvision's detectors normalise RGB images of 0 to 1; a TorchvisionFPN turns them round afterwards."""
    wanted: Any = found.preprocessing
    turn = -1 if wanted.input_format == "BGR" else 1
    edits: dict[Path, Any] = {
        ("model", "image_mean"): [round(value / 255, 6) for value in wanted.pixel_mean[::turn]],
        ("model", "image_std"): [round(value / 255, 6) for value in wanted.pixel_std[::turn]],
    }
    takes_format = has_fpn and "input_format" in keywords(cfg.model.backbone)
    if turn == -1 and not takes_format:
        raise ArgumentError(
            f"the weights of {found.name} expect BGR images, and torchvision's detectors pass RGB. A TorchvisionFPN "
            f"(input_format='BGR') would convert them, but this config has none. Nothing was changed."
        )
    if takes_format and cfg.model.backbone.get("input_format", "RGB") != wanted.input_format:
        edits["model", "backbone", "input_format"] = wanted.input_format
    return edits


def _formats(cfg: DictConfig) -> Iterator[Path]:
    """Where the dataloader's config says in which order images are read. Interpolations follow by themselves."""
    if "dataloader" not in cfg or OmegaConf.is_missing(cfg, "dataloader"):
        return
    for path, node in nodes_below(cfg.dataloader, ("dataloader",)):
        for key in FORMAT_KEYS:
            if key in node and not OmegaConf.is_interpolation(node, key) and not OmegaConf.is_missing(node, key):
                yield (*path, key)
