"""A plain ViT where maps of several strides are wanted: a SimpleFeaturePyramid around it, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import MISSING, DictConfig, open_dict

from detrex_backbones.backbones.pyramids.fpn import FPN
from detrex_backbones.backbones.pyramids.simple import FACTORS, SimpleFeaturePyramid
from detrex_backbones.config import LazyCall
from detrex_backbones.config.instantiation import target_of
from detrex_backbones.config.nodes import clone
from detrex_backbones.errors import ArgumentError, ConfigKeyError
from detrex_backbones.zoo.backbone_names import NamedBackbone, keywords
from detrex_backbones.zoo.swap.maps import Offer, choose, match
from detrex_backbones.zoo.swap.rewire import Shapes

__all__ = ["fpn_around", "in_place_of_fpn", "is_pyramid", "pyramid_around"]

OUT_CHANNELS = 256  # ViTDet's, and what detectors work with


def is_pyramid(node: DictConfig) -> bool:
    """Whether it is a SimpleFeaturePyramid, ours or detectron2's."""
    return isinstance(node.get("net"), DictConfig) and "scale_factors" in node


def pyramid_around(found: NamedBackbone, offer: Offer, old: DictConfig, old_shapes: Shapes, needed: Any) -> DictConfig:
    """The pyramid that gives the strides of the old backbone; the old one itself with another net if it was one.

    Raises:
        ArgumentError: the pyramid can't give a stride that is needed.
    """
    if is_pyramid(old):
        own = list(old_shapes)[: len(old.scale_factors)]  # the top block stays, and makes the others
        around = clone(old, old._get_parent())
        with open_dict(around):
            if getattr(target_of(old), "__name__", "") == SimpleFeaturePyramid.__name__:
                around["_target_"] = SimpleFeaturePyramid  # detectron2's would take the net's "p5" for its own
            _fill(around, found, offer, [old_shapes[name].stride for name in own])
        return around
    around = _to_be_filled(OUT_CHANNELS)
    _fill(around, found, offer, [old_shapes[name].stride for name in needed])
    return around


def in_place_of_fpn(found: NamedBackbone, offer: Offer, fpn: DictConfig, old_shapes: Shapes) -> DictConfig:
    """The pyramid that stands for an FPN: its strides, `out_channels` and `top_block`. The names are the same, too.

    Raises:
        ArgumentError: the pyramid can't give a stride that is needed.
        ConfigKeyError: the FPN doesn't say its `in_features` or `out_channels`.
    """
    missing = [key for key in ("in_features", "out_channels") if key not in fpn]
    if missing:
        raise ConfigKeyError(
            f"{found.name} has feature maps of one stride, so a SimpleFeaturePyramid would replace model.backbone, "
            f"which has no {' and '.join(missing)} to take over. Nothing was changed."
        )
    around = _to_be_filled(fpn.out_channels) if found.pyramid is None else clone(found.pyramid)
    around["out_channels"] = fpn.out_channels
    finest = old_shapes[fpn.in_features[0]].stride
    strides = [finest * 2**level for level in range(len(fpn.in_features))]  # those of a DC5 network may be equal
    last = _fill(around, found, offer, strides)
    block = fpn.get("top_block")
    if isinstance(block, DictConfig):
        around["top_block"] = clone(block)
        below = block.get("in_feature", keywords(block).get("in_feature"))
        if below in old_shapes:  # LastLevelP6P7 on res5: the network has no such map now
            around["top_block"]["in_feature"] = last
            if "in_channels" in block:
                around["top_block"]["in_channels"] = fpn.out_channels
    return around


def fpn_around(found: NamedBackbone, offer: Offer, old: DictConfig, old_shapes: Shapes) -> DictConfig:
    """The FPN that stands for a SimpleFeaturePyramid: its strides, names, `out_channels`, `norm` and `top_block`.

    Raises:
        ArgumentError: the network has no map of a stride that the pyramid makes itself.
    """
    own = list(old_shapes)[: len(old.scale_factors)]  # the top block makes the others
    names = match(old_shapes, offer.shapes, {("model", "backbone"): own}, found.name, below_fpn=True)
    choose(found.node, offer, list(names.values()))
    takes = keywords(old)
    around: DictConfig = LazyCall(FPN)(
        bottom_up=MISSING,
        in_features=list(names.values()),
        out_channels=old.out_channels,
        norm=old.get("norm", takes.get("norm")),
    )
    around["bottom_up"] = found.node
    if isinstance(old.get("top_block"), DictConfig):
        around["top_block"] = clone(old.top_block)
    return around


def _to_be_filled(out_channels: int) -> DictConfig:
    pyramid: DictConfig = LazyCall(SimpleFeaturePyramid)(
        net=MISSING, in_feature=MISSING, out_channels=out_channels, scale_factors=MISSING
    )
    return pyramid


def _fill(around: DictConfig, found: NamedBackbone, offer: Offer, strides: Sequence[int]) -> str:
    """Put the network into its pyramid; the name of the coarsest map that it makes."""
    feature = list(offer.shapes)[-1]
    own = offer.shapes[feature].stride
    wanted = [own / stride for stride in strides]
    factors = [factor for factor in FACTORS if min(wanted) <= factor <= max(wanted)]
    if not set(wanted) <= set(factors):
        possible = [own / factor for factor in FACTORS]
        raise ArgumentError(
            f"{found.name} has only feature maps of stride {own}. A SimpleFeaturePyramid makes strides "
            f"{', '.join(f'{stride:g}' for stride in possible)} of them, but the config needs "
            f"{', '.join(map(str, strides))}. Use a ViT with another patch size or a network with stages, or first "
            f"change which maps the config uses. Nothing was changed."
        )
    choose(found.node, offer, [feature])
    around["net"] = found.node
    around["in_feature"] = feature
    around["scale_factors"] = tuple(factors)
    return f"p{int(own / factors[-1]).bit_length() - 1}"
