"""The config of a run: a detector's, and how it is trained where that config doesn't say so itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from detrex_backbones import LazyConfig, get_config, swap_backbone
from detrex_backbones.errors import ConfigImportError

__all__ = ["load_config"]

RECIPE = Path(__file__).parents[1] / "recipe.py"


def load_config(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """A detector's config with `data`, `optimizer`, `schedule` and `train` of recipe.py, and the overrides applied.

    What the config has itself stays: each of its sections, and each key of its `train`.

    Args:
        name: a ready config, or a path to a config file.
        overrides: `key=value`; `backbone=NAME` swaps the backbone before all others, and what that changed is printed
            on standard error.

    Raises:
        ConfigError: there is no such config, or an override doesn't fit it.
        ArgumentError: the config has no place for the backbone.
    """
    try:
        cfg = LazyConfig.load(name) if Path(name).is_file() else get_config(name)
    except ConfigImportError as error:
        raise error if Path(name).is_file() else ConfigImportError(f"{error} Nor is there a file {name!r}.") from None
    recipe = LazyConfig.load(str(RECIPE))
    for section in recipe:
        if section not in cfg:
            cfg[section] = recipe[section]
    for key in recipe.train:
        if key not in cfg.train:
            cfg.train[key] = recipe.train[key]
    swaps = [text for text in overrides if text.startswith("backbone=")]
    for text in swaps[-1:]:  # as with every key, the last one stands
        for change in swap_backbone(cfg, text.partition("=")[2].strip()):
            print(change, file=sys.stderr)
    result: DictConfig = LazyConfig.apply_overrides(cfg, [text for text in overrides if text not in swaps])
    return result
