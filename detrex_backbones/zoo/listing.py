"""The names of backbones. Asking for them imports neither torch nor timm."""

from __future__ import annotations

from detrex_backbones.checkpoint.fetch.catalog import timm_weights
from detrex_backbones.glob_match import matcher
from detrex_backbones.zoo.ready_configs import list_configs

__all__ = ["TIMM", "hub_names", "list_backbones", "ready_backbones", "short_names", "timm_models"]

TIMM = "timm/"
DETECTORS = "detectors/"  # what a backbone is put into
SIZES = {"tiny", "small", "medium", "base", "large", "huge", "s", "m", "l", "x"}
DC5_STYLE = "detectron2"  # what "-dc5" without a style means


def list_backbones(pattern: str = "") -> list[str]:
    """The names that `get_backbone` and `swap_backbone` take, sorted.

    Ready configs ("resnet/resnet50"), what they are called for short where that is unambiguous ("resnet50",
    "resnet50-dc5-torchvision", and "resnet50-dc5", which is detectron2's kind; "swin_large_384"; "gluon_resnet50_v1d",
    as in Gluon's port), and, for a pattern that begins with "timm/", timm's models.

    Args:
        pattern: a part of the name, or a glob of all of it: "*dc5*"; "" for all.
    """
    matches = matcher(pattern)
    names = {*ready_backbones(), *short_names()}
    if pattern.startswith(TIMM):
        names |= {TIMM + name for name in timm_models()}
    return sorted(filter(matches, names))


def ready_backbones() -> list[str]:
    """The ready configs of backbones, without their extension: "resnet/resnet50"."""
    return [name.removesuffix(".py") for name in list_configs() if not name.startswith(DETECTORS)]


def short_names() -> dict[str, str]:
    """Short name -> ready config; what two configs would be called is no name."""
    aliases = {name: config for name, config in hub_names().items() if name != config.rpartition("/")[2]}
    seen: set[str] = set()
    for name in ready_backbones():
        short = name.rpartition("/")[2]
        network, dc5, style = short.partition("_dc5_")
        shorts = [f"{network}-dc5-{style}", *([f"{network}-dc5"] if style == DC5_STYLE else [])] if dc5 else [short]
        for alias in [] if name.startswith(TIMM) or _sized(network) else shorts:
            if alias in seen:
                aliases.pop(alias, None)
            else:
                aliases[alias] = name
            seen.add(alias)
    return aliases


def hub_names() -> dict[str, str]:
    """Name of an entry point of hubconf.py -> ready config: each has one."""
    names = {}
    for config in ready_backbones():
        folder, _, stem = config.partition("/")
        names[f"{folder}_{stem}" if folder in ("gluon", "timm") or _sized(stem) else stem] = config
    return names


def _sized(stem: str) -> bool:
    """Whether a config is called by its size, as swin/tiny is, which alone names no network."""
    return stem.partition("_")[0] in SIZES


def timm_models() -> list[str]:
    """The networks that timm has, which is not imported for it."""
    return timm_weights.models()
