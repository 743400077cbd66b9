"""The names of backbones. Asking for them imports neither torch nor timm."""

from __future__ import annotations

from detrex_backbones.checkpoint.fetch.catalog import timm_weights
from detrex_backbones.glob_match import matcher
from detrex_backbones.zoo.ready_configs import list_configs

__all__ = ["TIMM", "list_backbones", "ready_backbones", "short_names", "timm_models"]

TIMM = "timm/"
DETECTORS = "detectors/"  # what a backbone is put into
SIZES = {"tiny", "small", "base", "large", "huge"}
DC5_STYLE = "detectron2"  # what "-dc5" without a style means


def list_backbones(pattern: str = "") -> list[str]:
    """The names that `get_backbone` and `swap_backbone` take, sorted.

    Ready configs ("resnet/resnet50"), what they are called for short where that is unambiguous ("resnet50",
    "resnet50-dc5-torchvision", and "resnet50-dc5", which is detectron2's kind), and, for a pattern that begins with
    "timm/", timm's models.

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
    aliases: dict[str, str] = {}
    seen: set[str] = set()
    for name in ready_backbones():
        short = name.rpartition("/")[2]
        network, dc5, style = short.partition("_dc5_")
        shorts = [f"{network}-dc5-{style}", *([f"{network}-dc5"] if style == DC5_STYLE else [])] if dc5 else [short]
        sized = network.partition("_")[0] in SIZES  # "swin/tiny": a size alone names no network
        for alias in [] if name.startswith(TIMM) or sized else shorts:
            if alias in seen:
                aliases.pop(alias, None)
            else:
                aliases[alias] = name
            seen.add(alias)
    return aliases


def timm_models() -> list[str]:
    """The networks that timm has, which is not imported for it."""
    return timm_weights.models()
