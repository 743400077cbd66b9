"""What of the old backbone the new one takes over: channels of the image, freezing, norms, recomputation, drop path."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, open_dict
from torch import nn

from detrex_backbones.config.instantiation import target_of
from detrex_backbones.config.nodes import clone, is_call, to_plain
from detrex_backbones.config.targets import dotted_name
from detrex_backbones.errors import SAME, DetrexBackbonesError
from detrex_backbones.layers.frozen_batch_norm import is_frozen_norm
from detrex_backbones.zoo.backbone_names import NamedBackbone, keywords
from detrex_backbones.zoo.meta_build import build_on_meta

__all__ = ["Dropped", "carry_over"]

RECOMPUTING, CHANNELS, DROP_PATH = SAME
# Whose `frozen_stages` counts the patches (or the positions) as a stage, and whose says "nothing" by 0 as well.
COUNT_PATCHES = ("SwinTransformer", "FocalNet")
FROM_ONE = ("ConvNeXt", "PyramidVisionTransformer")

# Class of a norm -> what configs call it.
NORMS = {"BatchNorm2d": "BN", "SyncBatchNorm": "SyncBN", "GroupNorm": "GN"}
SYNCHRONISED = ("SyncBN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")
# A transformer's own norms are no choice that somebody made.
TRANSFORMERS_OWN = ("LayerNorm", "LayerNorm2d")
OWN_NORMS = (*TRANSFORMERS_OWN, "LN", "BN", "", None)


@dataclass(frozen=True)
class Dropped:
    """A setting of the old backbone that the new one doesn't have.

    Args:
        key: what it is called: "norm".
        value: what it was.
        why: why it wasn't carried over.
    """

    key: str
    value: Any
    why: str


def carry_over(old: DictConfig, found: NamedBackbone) -> list[Dropped]:
    """Into the new node, in place, wherever it takes such an argument and nobody has written it down there.

    Returns:
        What the old one had set and the new one can't have.
    """
    stem = _places(old)[0]
    channels = next((value for key in CHANNELS if isinstance(value := _argument(stem, key), int)), None)
    if channels is None:
        channels = next((value for key in CHANNELS if isinstance(value := _argument(old, key), int)), None)
    dropped = []
    if isinstance(channels, int) and not _put(found, _places(found.node)[0], CHANNELS, channels) and channels != 3:
        dropped.append(Dropped("in_channels", channels, f"{found.name} doesn't take in_channels"))
    freeze_at = _freeze_at(old)
    if freeze_at is not None and not _put(found, found.node, ("freeze_at",), freeze_at) and freeze_at:
        dropped.append(Dropped("freeze_at", freeze_at, f"{found.name} takes no freeze_at: nothing of it is frozen"))
    return dropped + _carry_recomputing(old, found) + _carry_drop_path(old, found) + _carry_norm(old, found)


def _places(node: DictConfig) -> list[DictConfig]:
    """Where the stem's and the stages' arguments stand: the node itself but for a ResNet."""
    return [part if isinstance(part := node.get(key), DictConfig) else node for key in ("stem", "stages")]


def _put(found: NamedBackbone, place: DictConfig, keys: tuple[str, ...], value: Any) -> bool:
    """Set the first of these arguments that the node at the place takes; False where it takes none."""
    takes = [key for key in keys if key in keywords(place)]
    if takes and not (found.explicit and any(key in place for key in takes)):
        with open_dict(place):
            place[takes[0]] = value
    return bool(takes)


def _argument(node: Any, key: str) -> Any:
    """What a call gets for an argument, its default included; None where it has none."""
    if not isinstance(node, DictConfig) or not is_call(node):
        return None
    default = keywords(node).get(key)
    return node.get(key, None if default is inspect.Parameter.empty else default)


def _freeze_at(old: DictConfig) -> int | None:
    """`freeze_at`, or what `frozen_stages` is in its numbers: 0 is nothing, 1 what comes before the stages."""
    freeze_at, stages = _argument(old, "freeze_at"), _argument(old, "frozen_stages")
    if isinstance(freeze_at, int) or not isinstance(stages, int):
        return freeze_at if isinstance(freeze_at, int) else None
    name = (dotted_name(old["_target_"]) or str(old["_target_"])).rpartition(".")[2]
    if name in COUNT_PATCHES:
        return max(stages, 1) if stages >= 0 else 0
    return 0 if name in FROM_ONE and stages == 0 else stages + 1


def _carry_recomputing(old: DictConfig, found: NamedBackbone) -> list[Dropped]:
    wanted = next(((key, value) for key in RECOMPUTING if (value := _argument(old, key))), None)
    if wanted is None or _put(found, found.node, RECOMPUTING, True):
        return []
    return [Dropped(wanted[0], to_plain(wanted[1]), f"{found.name} has no activation checkpointing")]


def _carry_drop_path(old: DictConfig, found: NamedBackbone) -> list[Dropped]:
    wanted = next(((key, value) for key in DROP_PATH if (value := _argument(old, key))), None)
    if wanted is None or _put(found, found.node, DROP_PATH, wanted[1]):
        return []
    if found.explicit and any(key in found.node for key in DROP_PATH):
        return []
    if _takes_anything(found.node):
        for key in DROP_PATH:
            if _built(found.node, key, wanted[1]) is not None:
                found.node[key] = wanted[1]
                return []
    return [Dropped(wanted[0], wanted[1], f"{found.name} has no drop path")]


def _carry_norm(old: DictConfig, found: NamedBackbone) -> list[Dropped]:
    node = found.node
    norms = [_norm_name(value) for part in _places(old) if (value := _argument(part, "norm")) is not None]
    if "norm_layer" in keywords(old):
        layer = _norm_name(old.get("norm_layer"))
        norms.append("LayerNorm" if layer == "LN" else layer or "BN")  # None is the model's own
    if not norms or norms[-1] in TRANSFORMERS_OWN:
        return []
    frozen = is_frozen_norm(norms[0])
    taken = False
    for key, norm in (("stem", norms[0]), ("stages", norms[-1])):
        if isinstance(node.get(key), DictConfig) and (
            frozen or isinstance(norm, str)
        ):  # what else timm takes may not do
            taken = _put(found, node[key], ("norm",), "FrozenBN" if frozen else norm)
    if taken or (found.explicit and "norm_layer" in node):
        return []
    norm = norms[-1]
    # A wrapper's, whose None is the network's own; Swin's and ViT's own makes layer norms, and is no choice.
    takes_names = keywords(node).get("norm_layer", "") is None
    if frozen and takes_names and not _has_frozen(_built(node, "norm_layer", "FrozenBN")):
        return []  # it has no batch norms, and so none to freeze
    if frozen or norm in OWN_NORMS:
        if takes_names:
            _put(found, node, ("norm_layer",), "FrozenBN" if frozen else None)
        return []
    layer = _norm_layer(norm)
    if layer is not None and takes_names and _has_only(_built(node, "norm_layer", layer), layer):
        node["norm_layer"] = layer
        return []
    return [Dropped("norm", to_plain(norm), f"{found.name} has {_own_norms(node)}")]


def _norm_name(value: Any) -> Any:
    """What a config calls a norm: its name, of a class of torch's too; anything else as it is."""
    made = value.func if isinstance(value, functools.partial) else value
    if is_frozen_norm(made):
        return "FrozenBN"
    name = made if isinstance(made, str) else getattr(made, "__name__", "")
    short = str(name).rpartition(".")[2]
    return NORMS.get(short, short if short in OWN_NORMS or isinstance(value, str) else value)


def _norm_layer(norm: Any) -> Any:
    """The class for `norm_layer` that makes such norms of a number of channels; None where there is none."""
    if norm in SYNCHRONISED:
        return nn.SyncBatchNorm
    if norm == "GN":
        from timm.layers import GroupNorm

        return GroupNorm
    return None


def _takes_anything(node: DictConfig) -> bool:
    found = inspect.signature(target_of(node)).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in found)


def _built(node: DictConfig, key: str, value: Any) -> nn.Module | None:
    """The network with another argument, without weights; None where it can't be made so."""
    changed = clone(node)
    with open_dict(changed):
        changed[key] = value
        changed.pop("pretrained", None)
    try:
        made: nn.Module = build_on_meta(changed)
    except DetrexBackbonesError:
        return None
    return made


def _norms(net: nn.Module) -> set[type]:
    return {type(module) for module in net.modules() if "Norm" in type(module).__name__}


def _has_only(net: nn.Module | None, layer: type) -> bool:
    """Whether all its norms are of that class."""
    return net is not None and {issubclass(kind, layer) for kind in _norms(net)} == {True}


def _has_frozen(net: nn.Module | None) -> bool:
    """Whether some of its norms are frozen ones, timm's with an activation too; so where it can't be built."""
    return net is None or any("Frozen" in kind.__name__ for kind in _norms(net))


def _own_norms(node: DictConfig) -> str:
    net = _built(node, "pretrained", False) if "pretrained" in keywords(node) else None
    names = sorted(kind.__name__ for kind in _norms(net)) if net is not None else []
    return f"{' and '.join(names) or 'norms of its own'} in its place"
