"""timm's weights, from timm's own pretrained configs. timm always wants RGB.

Their accuracies are those of the file results/results-imagenet.csv in timm's repository, as of its commit 4e5207c7 of
30 October 2025: of each name that timm 1.0.31 has, the row of the image size and crop of its pretrained config, which
is the recipe here. They stand in timm_top.csv, sorted; what is no classifier of ImageNet's 1000 classes has none.
"""

from __future__ import annotations

import csv
import functools
import math
import re
from importlib import resources
from typing import Any

from detrex_backbones.checkpoint.fetch.catalog import gluon
from detrex_backbones.checkpoint.fetch.catalog.library_tables import LibraryTable, library_table
from detrex_backbones.checkpoint.fetch.catalog.weight import IMAGENET, Preprocessing, Recipe, Weight

__all__ = ["HUB_URL", "SCHEME", "ask", "by_hash", "get", "models", "names"]

SCHEME = "timm://"
HUB_URL = "https://huggingface.co/{hub}/resolve/main/model.safetensors"
SHA256 = re.compile(r"-([0-9a-f]{8,64})\.(?:pth|pt|bin|safetensors)$")
TIMM_CONFIG = "timm/resnet152d.py"  # whose model_name any timm model can take

KNOWN_PIXELS = {
    ((127.5,) * 3, (127.5,) * 3): "half",
    ((0.0,) * 3, (255.0,) * 3): "unit",
}
OWN_CONFIGS = {
    **{timm_name: f"gluon/{name}.py" for timm_name, name in gluon.TIMM_NAMES.items()},
    "resnext101_32x8d": "resnet/resnext101_32x8d.py",
    "wide_resnet50_2": "resnet/wide_resnet50_2.py",
    "wide_resnet101_2": "resnet/wide_resnet101_2.py",
}


def ask() -> LibraryTable:
    """timm's own answer, which imports it."""
    import timm

    found = {name: weight for name in timm.list_pretrained() if (weight := _from_timm(name)) is not None}
    return LibraryTable(tuple(timm.list_models()), found)


def models() -> list[str]:
    """Every network: "resnet50d"."""
    table = library_table("timm", ask)
    if table is not None:
        return list(table.models)
    import timm

    return list(timm.list_models())


def names() -> list[str]:
    """Every name with a tag: "resnet50d.gluon_in1k"."""
    table = library_table("timm", ask)
    if table is not None:
        return list(table.weights)
    import timm

    return list(timm.list_pretrained())


def get(name: str) -> Weight | None:
    """A weight by its name, or the default weights of a network without a tag; None if unknown.

    Args:
        name: "resnet50d.gluon_in1k" or "resnet50d".
    """
    table = library_table("timm", ask)
    return table.weights[name] if table is not None and name in table.weights else _from_timm(name)


def _from_timm(name: str) -> Weight | None:
    import timm

    if not timm.is_model(name.partition(".")[0]):
        return None
    try:
        cfg: Any = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:  # no such tag
        return None
    return _weight(cfg) if cfg is not None and (cfg.url or cfg.hf_hub_id) and cfg.tag else None


def by_hash(digest: str) -> Weight | None:
    """The first weight whose published file has this hash in its name."""
    import timm

    configs: Any = (timm.get_pretrained_cfg(name) for name in names())
    return next((_weight(cfg) for cfg in configs if cfg.url and f"-{digest}." in cfg.url), None)


def _weight(cfg: Any) -> Weight:
    hub = cfg.hf_hub_id or ""
    url = HUB_URL.format(hub=hub) if hub else cfg.url
    digest = SHA256.search(url)
    config = OWN_CONFIGS.get(cfg.architecture, "")
    basic = cfg.architecture in ("resnet18", "resnet34")
    top1, top5 = _accuracies().get(f"{cfg.architecture}.{cfg.tag}", (None, None))
    return Weight(
        name=f"{SCHEME}{cfg.architecture}.{cfg.tag}",
        url=url,
        hash=f"sha256:{digest[1]}" if digest else "",
        preprocessing=_preprocessing(cfg),
        model=cfg.architecture,
        config=config or TIMM_CONFIG,
        overrides=() if config else (f"model.backbone.model_name={cfg.architecture}",),
        stride_in_1x1=False if config and not basic else None,
        norm_eps=1e-5 if config else None,
        top1=top1,
        top5=top5,
        classes=cfg.num_classes,
        recipe=_recipe(cfg) if cfg.num_classes else None,
        licence=cfg.license or "",
        hub=hub,
    )


def _preprocessing(cfg: Any) -> Preprocessing:
    mean = tuple(round(value * 255, 4) for value in cfg.mean)
    std = tuple(round(value * 255, 4) for value in cfg.std)
    if (mean, std) == (IMAGENET.pixel_mean, IMAGENET.pixel_std):
        return IMAGENET
    return Preprocessing(KNOWN_PIXELS.get((mean, std), "own"), mean, std)


def _recipe(cfg: Any) -> Recipe | None:
    height, width = cfg.input_size[-2:]
    mode = cfg.crop_mode or "center"
    if height != width or mode not in ("center", "squash"):
        return None
    return Recipe(math.floor(height / (cfg.crop_pct or 0.875)), height, cfg.interpolation or "bilinear", mode)


@functools.cache
def _accuracies() -> dict[str, tuple[float, float]]:
    """Name -> ImageNet top-1 and top-5 in per cent."""
    table = resources.files("detrex_backbones.checkpoint.fetch.catalog").joinpath("timm_top.csv")
    rows = csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    return {row["name"]: (float(row["top1"]), float(row["top5"])) for row in rows}
