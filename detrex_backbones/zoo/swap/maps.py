"""Which maps the new backbone has, and which of them stands for which of the old ones."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detrex_backbones.config.nodes import clone
from detrex_backbones.errors import ArgumentError
from detrex_backbones.zoo.backbone_names import NamedBackbone, keywords
from detrex_backbones.zoo.meta_build import shapes_of
from detrex_backbones.zoo.swap.rewire import Path, Shapes

__all__ = ["Offer", "choose", "match", "offer_of"]

logger = logging.getLogger(__name__)

ALL_STAGES = ["res2", "res3", "res4", "res5"]
FACTORS = [4.0, 2.0, 1.0, 0.5]  # of a SimpleFeaturePyramid: ViTDet's
COARSEST_PLAIN = 16  # a single map of a larger stride is the end of a network that has others


@dataclass(frozen=True)
class Offer:
    """The maps that a backbone could give.

    Args:
        shapes: name -> shape of each.
        indices: name -> what makes the network give it: a number in `out_indices`, a factor in a pyramid's
            `scale_factors`; None for a backbone that has neither.
        plain: whether it is a network of a single scale, as a ViT is.
    """

    shapes: dict[str, Any]
    indices: dict[str, Any] | None = None
    plain: bool = False


def offer_of(found: NamedBackbone) -> Offer:
    """What the network has; a carried-over freeze_at is dropped where it has no stages to freeze, or fewer."""
    try:
        return _offer(found.node, found.name, found.explicit)
    except ArgumentError as error:
        carried_over = 0 if found.explicit else found.node.get("freeze_at")
        if not carried_over:
            raise
        found.node["freeze_at"] = 0
        try:
            offer = _offer(found.node, found.name, found.explicit)
        except ArgumentError:  # it wasn't freeze_at that is wrong
            raise error from None
        logger.warning("freeze_at=%s is not carried over: %s", carried_over, error)
        return offer


def _offer(node: DictConfig, name: str, explicit: bool) -> Offer:
    if "model_name" in node and "out_indices" in keywords(node):
        strides = _timm_strides(node.model_name)
        if node.get("out_features") is not None:
            node["out_indices"] = [int(feature[1:]) for feature in node.pop("out_features")]
        elif node.get("out_indices") is None:
            node["out_indices"] = list(range(len(strides)))
        indices = list(node.out_indices)
        shapes = shapes_of(node, name)
        plain = len(strides) > 1 and len(set(strides)) == 1
        return Offer(shapes, dict(zip(shapes, indices, strict=True)), plain)
    if "stages" in node and "out_features" in keywords(node):
        wider = clone(node)
        wider["out_features"] = ALL_STAGES
        try:
            return Offer(shapes_of(wider, name))
        except ArgumentError:  # fewer stages: what the node itself asks for
            return Offer(shapes_of(node, name))
    shapes = shapes_of(node, name)
    wider_offer = None if explicit else _wider(node, name, shapes)
    if wider_offer is not None:
        return wider_offer
    strides = [shape.stride for shape in shapes.values()]
    return Offer(shapes, plain=len(set(strides)) == 1 and strides[0] is not None and strides[0] <= COARSEST_PLAIN)


def _wider(node: DictConfig, name: str, shapes: dict[str, Any]) -> Offer | None:
    """All maps of a network that is asked for some of them by number, or of a pyramid; None for another network."""
    if "scale_factors" in node:
        key, values = "scale_factors", FACTORS
    elif "out_indices" in keywords(node) and node.get("out_indices") is not None:
        key, values = "out_indices", list(range(max(node.out_indices) + 1))
    else:
        return None
    wider = clone(node)
    _set(wider, key, values)
    try:
        found = shapes_of(wider, name)
    except ArgumentError:
        return None
    if not found.items() >= shapes.items():  # numbers of another meaning
        return None
    return Offer(found, dict(zip(found, values, strict=False)))


def _timm_strides(model_name: str) -> list[int]:
    """The stride of every map that timm's model has."""
    import torch

    from detrex_backbones.backbones.timm.build import timm_network

    try:
        with torch.device("meta"):
            info: Any = timm_network(model_name, features_only=True).feature_info
    except Exception as error:
        raise ArgumentError(f"timm's {model_name!r} gives no feature maps: {type(error).__name__}: {error}") from error
    return [entry["reduction"] for entry in info.info]


def choose(node: DictConfig, offer: Offer, names: Collection[str]) -> None:
    """Make the node give these maps."""
    if offer.indices is not None:
        key = "scale_factors" if "scale_factors" in node else "out_indices"
        chosen = [offer.indices[name] for name in offer.indices if name in names]
        _set(node, key, chosen if key == "scale_factors" else [offer.indices[name] for name in names])
    elif "out_features" in keywords(node) and set(ALL_STAGES) >= set(names):
        _set(node, "out_features", list(names))


def _set(node: DictConfig, key: str, values: list[Any]) -> None:
    # Assigned, a list in the place of a tuple is a warning of omegaconf's.
    OmegaConf.update(node, key, values, merge=False, force_add=True)


def match(
    old: Shapes, new: Shapes, after: dict[Path, list[str]], name: str, *, below_fpn: bool, spare: Collection[str] = ()
) -> dict[str, str]:
    """Old map -> new map, for those that are needed.

    From res2 ... res5 to res2 ... res5 by name, except below an FPN, which counts on strides. Otherwise the map of the
    same stride, the deepest of several. Dilation halves strides and keeps maps, on either side, so that what has no
    stride of its own left there is the next deeper map.

    `after` says where the old maps are named, see `consumers`; those in `spare` may go without a match where they are
    coarser than all of the new ones. An ArgumentError names any other that has none.
    """
    needed = needed_of(old, after)
    if not below_fpn and set(needed) <= {*ALL_STAGES} & {*new}:
        return {key: key for key in needed}
    strides = [shape.stride for shape in new.values()]
    dilated = not below_fpn and strides.count(max(strides)) > 1
    groups: dict[int, list[str]] = {}
    for key in needed:
        groups.setdefault(min(old[key].stride, max(strides)) if dilated else old[key].stride, []).append(key)
    found: dict[str, str] = {}
    for stride, keys in groups.items():
        same = [other for other in new if new[other].stride == stride]
        found |= zip(keys, same[-len(keys) :], strict=False)
        for key in keys[len(same) :]:
            deeper = _next(new, found) if len(same) and old[key].stride == stride and not below_fpn else None
            if deeper is not None:
                found[key] = deeper
            elif key not in spare or old[key].stride <= max(strides):
                raise _no_map(key, old, new, after, name)
    return found


def _next(new: Shapes, found: dict[str, str]) -> str | None:
    """The map behind the deepest that is taken."""
    order = list(new)
    behind = order[max(order.index(taken) for taken in found.values()) + 1 :]
    return behind[0] if behind else None


def _no_map(key: str, old: Shapes, new: Shapes, after: dict[Path, list[str]], name: str) -> ArgumentError:
    stride = old[key].stride
    places = " and ".join(".".join(map(str, place)) for place, names in after.items() if key in names)
    has = ", ".join(f"{other} (stride {shape.stride})" for other, shape in new.items())
    coarser = stride > max(shape.stride for shape in new.values())
    cure = "put this one into an FPN with a top block" if coarser else "name other maps there"
    return ArgumentError(
        f"{name} has no map of stride {stride} for {key}{f' of {places}' if places else ''} that is not taken. It has: "
        f"{has}. Take a backbone that has one, or first {cure} in the config. Nothing was changed."
    )


def needed_of(old: Shapes, after: dict[Path, list[str]]) -> list[str]:
    """Those of the old maps that something names; all of them where nothing names any."""
    return [name for name in old if any(name in names for names in after.values())] or list(old)
