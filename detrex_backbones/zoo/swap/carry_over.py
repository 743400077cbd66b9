"""What of the old backbone the new one takes over: number of image channels, freeze_at, frozen norms."""

from __future__ import annotations

import inspect
from typing import Any

from omegaconf import DictConfig, open_dict

from detrex_backbones.config.nodes import is_call
from detrex_backbones.layers.frozen_batch_norm import is_frozen_norm
from detrex_backbones.zoo.backbone_names import NamedBackbone, keywords

__all__ = ["carry_over"]


def carry_over(old: DictConfig, found: NamedBackbone) -> None:
    """Into the new node, in place, wherever it takes such an argument and nobody has written it down there."""
    node = found.node

    def put(place: Any, key: str, value: Any) -> None:
        if isinstance(place, DictConfig) and key in keywords(place) and not (found.explicit and key in place):
            with open_dict(place):
                place[key] = value

    channels = _argument(old.get("stem"), "in_channels") or _argument(old, "in_channels")
    if isinstance(channels, int):
        put(node.get("stem") if "stem" in node else node, "in_channels", channels)
    freeze_at = _argument(old, "freeze_at")
    if isinstance(freeze_at, int):
        put(node, "freeze_at", freeze_at)
    norms = [value for part in (old.get("stem"), old.get("stages")) if (value := _argument(part, "norm")) is not None]
    if "norm_layer" in keywords(old):
        norms.append(old.get("norm_layer") or "BN")  # None is the model's own
    if not norms:
        return
    frozen = is_frozen_norm(norms[0])
    put(node, "norm_layer", "FrozenBN" if frozen else None)
    for part, norm in (("stem", norms[0]), ("stages", norms[-1])):
        if frozen or isinstance(norm, str):  # what else timm takes, we may not
            put(node.get(part), "norm", "FrozenBN" if frozen else norm)


def _argument(node: Any, key: str) -> Any:
    """What a call gets for an argument, its default included; None where it has none."""
    if not isinstance(node, DictConfig) or not is_call(node):
        return None
    default = keywords(node).get(key)
    return node.get(key, None if default is inspect.Parameter.empty else default)
