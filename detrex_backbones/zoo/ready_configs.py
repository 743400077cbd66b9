"""The ready configs of `configs/`, by name."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from detrex_backbones.config import LazyConfig
from detrex_backbones.errors import ConfigImportError, closest

__all__ = ["config_file", "get_config", "list_configs", "preprocessing_of"]

SHARED = "common"  # what ready configs import; no config of its own

# How the names of other projects' configs begin -> the function that has them.
ELSEWHERE = {
    ("common/",): "detrex's (from detrex.config import get_config) or detectron2's (from "
    "detectron2.model_zoo import get_config)",
    ("COCO-", "LVISv", "Cityscapes/", "PascalVOC-", "Misc/", "Detectron1-", "new_baselines/"): "detectron2's (from "
    "detectron2.model_zoo import get_config)",
}


def get_config(name: str) -> DictConfig:
    """A ready config, loaded afresh: change it as you like.

    Args:
        name: as `list_configs` gives it: "resnet/resnet50.py"; the extension may be left out.

    Raises:
        ConfigImportError: there is no such config; the closest names are suggested. "common/train.py" and the like are
            those of `detrex.config.get_config` and `detectron2.model_zoo.get_config`.
    """
    return LazyConfig.load(config_file(name))  # type: ignore[no-any-return]


def list_configs() -> list[str]:
    """The names of all ready configs, sorted."""
    root = _config_root()
    names = (path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    return sorted(name for name in names if not name.startswith(f"{SHARED}/"))


def config_file(name: str) -> Path:
    """Where the ready config of this name lies; see `get_config`."""
    wanted = name if name.endswith(".py") else f"{name}.py"
    if wanted not in list_configs():
        theirs = [place for starts, place in ELSEWHERE.items() if name.startswith(starts)]
        hint = f" It may be {theirs[0]}." if theirs else closest(wanted, list_configs())
        raise ConfigImportError(
            f"there is no ready config {name!r} of detrex_backbones.{hint} "
            f"`detrex-backbones list` shows all {len(list_configs())}."
        )
    return _config_root() / wanted


def preprocessing_of(name: str) -> dict[str, Any]:
    """The `pixel_mean`, `pixel_std` and `input_format` of a ready config, read without running it.

    Running it would import torch. Each has them from `common/preprocessing.py`, by `**imagenet_rgb` in the file that
    makes the model.
    """
    path = config_file(name)
    while True:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        sources = {
            alias.name: node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
        }
        spread = [
            node.value.id
            for node in ast.walk(tree)
            if isinstance(node, ast.keyword) and node.arg is None and isinstance(node.value, ast.Name)
        ]
        wanted = spread[0] if spread else "model"
        path = path.parents[sources[wanted].level - 1] / f"{str(sources[wanted].module).replace('.', '/')}.py"
        if spread:
            return dict(LazyConfig.load(path, wanted))


def _config_root() -> Path:
    package = Path(__file__).parents[1]
    # Inside the package once it is installed; beside it in a checkout.
    return next((root for root in (package / "configs", package.parent / "configs") if root.is_dir()), package)
