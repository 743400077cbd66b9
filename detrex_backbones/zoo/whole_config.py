"""The whole config that a name or a lone backbone stands for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detrex_backbones.checkpoint.fetch import Preprocessing, find_known
from detrex_backbones.checkpoint.fetch.catalog.weight import IMAGENET
from detrex_backbones.config import LazyCall, LazyConfig
from detrex_backbones.config.nodes import ALLOW_OBJECTS, is_call
from detrex_backbones.errors import ConfigImportError, closest
from detrex_backbones.remote import is_remote
from detrex_backbones.text import visible
from detrex_backbones.zoo.listing import TIMM, short_names
from detrex_backbones.zoo.ready_configs import get_config, list_configs

__all__ = ["find_config", "is_config_file", "read_config", "with_model"]


def find_config(name: str) -> DictConfig:
    """The config of a name that `list_configs` or `list_backbones` gives, or of a timm model.

    Args:
        name: "resnet/resnet50.py", "resnet101-dc5" or "timm/convnext_tiny". A timm model comes with the preprocessing
            of the weights that timm has for it, and with their name as `train.init_checkpoint`.

    Raises:
        ConfigImportError: there is no such name; the closest are suggested.
        ArgumentError: timm has no such model.
    """
    names = list_configs()
    if name in names or f"{name}.py" in names:
        return get_config(name)
    short = short_names()
    if name in short:
        return get_config(short[name])
    if name.startswith(TIMM) and not name.endswith(".py"):
        return _of_timm(name)
    near = closest(name if "/" not in name or name.endswith(".py") else f"{name}.py", [*names, *short])
    raise ConfigImportError(
        f"there is no ready config {visible(name)!r}.{near} `detrex-backbones list` shows all {len(names)}. "
        f"Nor is there a file '{visible(name)}'."
    )


def is_config_file(name: Any) -> bool:
    """Whether it names a file, here or on remote storage, and not a ready config."""
    try:
        return is_remote(name) or Path(name).is_file()
    except OSError:  # a name that no file can have
        return False


def read_config(config: Any, overrides: Sequence[str] = ()) -> DictConfig:
    """A config file's path, a name as of `find_config`, or a config: with a `model`, and with overrides applied.

    Raises:
        ConfigError: there is no such file or name, or an override doesn't fit.
    """
    if isinstance(config, DictConfig):
        cfg = config.copy()
    else:
        cfg = LazyConfig.load(config) if is_config_file(config) else find_config(str(config))
    with_model(cfg)
    return LazyConfig.apply_overrides(cfg, overrides)


def _of_timm(name: str) -> DictConfig:
    from detrex_backbones.backbones.images.extractor import FeatureExtractor
    from detrex_backbones.zoo.backbone_names import find_backbone

    found = find_backbone(name)
    found.node["out_indices"] = None  # the maps that timm chooses for it
    cfg = DictConfig({}, flags=dict(ALLOW_OBJECTS))
    extractor: Any = LazyCall(FeatureExtractor)  # its argument is a node here, no backbone
    cfg.model = extractor(backbone=found.node, **_keywords(found.preprocessing or IMAGENET))
    cfg.train = {"device": "", "init_checkpoint": found.checkpoint}
    return cfg


def with_model(cfg: Any) -> str:
    """Give a config that has only `backbone = L(...)` the `model` that it stands for, in place.

    The model is a FeatureExtractor over that backbone, with the preprocessing of the weights that the config names, or
    else ImageNet's.

    Args:
        cfg: any config.

    Returns:
        What was assumed, as a sentence; "" where nothing was to be done.
    """
    if not isinstance(cfg, DictConfig) or "model" in cfg or not is_call(cfg.get("backbone")):
        return ""
    from detrex_backbones.backbones.images.extractor import FeatureExtractor

    checkpoint = OmegaConf.select(cfg, "train.init_checkpoint", default="") or ""
    model = cfg.backbone.get("model_name")
    known = find_known(checkpoint) if checkpoint else find_known(f"timm://{model}") if isinstance(model, str) else None
    pixels = (known and known.preprocessing) or IMAGENET
    extractor: Any = LazyCall(FeatureExtractor)  # its argument is an interpolation here
    cfg.model = extractor(backbone="${backbone}", **_keywords(pixels))
    whose = f"of {known.name}" if known and known.preprocessing else "of ImageNet (assumed)"
    return f"model = FeatureExtractor(backbone, mean and standard deviation {whose}, {pixels.input_format})"


def _keywords(pixels: Preprocessing) -> dict[str, Any]:
    mean, std = list(pixels.pixel_mean), list(pixels.pixel_std)
    return {"pixel_mean": mean, "pixel_std": std, "input_format": pixels.input_format}
