"""swap_backbone: one call, another backbone, and every edit that it asks for planned before the first is made."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detrex_backbones.backbones.base import Backbone
from detrex_backbones.backbones.images.extractor import FeatureExtractor
from detrex_backbones.config.instantiation import target_of
from detrex_backbones.config.nodes import is_call
from detrex_backbones.errors import ArgumentError, ConfigKeyError
from detrex_backbones.kinds import kinds_checked
from detrex_backbones.zoo.backbone_names import NamedBackbone, find_backbone
from detrex_backbones.zoo.meta_build import shapes_of
from detrex_backbones.zoo.swap.carry_over import carry_over
from detrex_backbones.zoo.swap.change import Change, apply, changes_of
from detrex_backbones.zoo.swap.layer_decay import layer_decay_edits
from detrex_backbones.zoo.swap.maps import Offer, choose, match, needed_of, offer_of
from detrex_backbones.zoo.swap.preprocessing import preprocessing_edits
from detrex_backbones.zoo.swap.pyramid import fpn_around, in_place_of_fpn, is_pyramid, pyramid_around
from detrex_backbones.zoo.swap.rewire import (
    Path,
    Shapes,
    check_heads,
    consumers,
    read,
    rewire,
    rewire_top_block,
    spare_maps,
)

__all__ = ["swap_backbone"]

logger = logging.getLogger(__name__)


@kinds_checked
def swap_backbone(
    cfg: DictConfig,
    backbone: str | os.PathLike[str] | DictConfig,
    *,
    pretrained: bool = True,
    pyramid: bool = True,
) -> list[Change]:
    """Give a config's model another backbone, in place, and rewire what follows it.

        swap_backbone(cfg, "timm/convnext_tiny")
        swap_backbone(cfg, "resnet101-dc5")
        swap_backbone(cfg, L(TimmBackbone)(model_name="swin_tiny_patch4_window7_224"), pretrained=False)

    Changed are `model.backbone` (in an FPN its `bottom_up`); `pixel_mean`, `pixel_std` and `input_format`, where the
    model has them, and with them `image_format` / `img_format` in the `dataloader`; of torchvision's detectors
    `image_mean`, `image_std` and the FPN's `input_format`; `train.init_checkpoint`; and whatever names the old
    backbone's maps or counts their channels: `in_features`, `in_channels` beside them, `input_shapes` /
    `input_shape`, an FPN's `top_block`.

    The new maps are those of the same strides. To and from a DC5 network, whose last strides are equal, they are those
    of the same depth, except under detectron2's FPN, which wants each stride twice the last. A neck with `num_outs`
    makes maps that are coarser than the network's by itself: its `in_features` get shorter and `num_outs` stays right.
    A plain ViT, which has one stride, is put into a `SimpleFeaturePyramid`; that also takes the place of an FPN.
    Shapes are computed without weights.

    The way back, a SimpleFeaturePyramid whose top block is needed becomes an FPN with it.

    `in_channels`, `freeze_at`, norms, recomputation (`checkpoint_stages`, `use_act_checkpoint`) and drop path stay as
    they were where the new network can have them, unless a node or file says them itself. What it can't have is among
    the changes, with the reason, and a warning. Where an `lr_factor_func` of the optimizer counts a ViT's blocks, its
    `num_layers` follows.

    Args:
        cfg: with a `model` that has a `backbone`, or is one.
        backbone: a name as of `list_backbones` ("-dc5" alone dilates detectron2's way), "timm/<model>", a node of a
            backbone or of a FeatureExtractor, or a config file's path.
        pretrained: name the weights that are known for it as `train.init_checkpoint`; False empties it.
        pyramid: False leaves a plain ViT as it is, with its own map, where nothing in the config wants another: the
            pyramid's weights are in no file of the ViT.

    Returns:
        What was changed, in order; `str` of each is a line. They are logged at INFO, too.

    Raises:
        ArgumentError: an unknown name, with the closest; no map of a stride that is needed; heads that pool the
            backbone's own maps (detectron2's C4), for which others would not do. Nothing is changed then.
        ConfigError: there is no model or no backbone in the config, or in what is given. Nothing is changed then.
    """
    if not isinstance(cfg, DictConfig) or not isinstance(cfg.get("model"), DictConfig):
        raise ConfigKeyError("swap_backbone changes a config that has a 'model'; this one has none.")
    edits, said = _plan(cfg, find_backbone(backbone), pretrained, pyramid)
    changes = changes_of(cfg, edits)
    apply(cfg, edits)
    for change in changes:
        logger.info("%s", change)
    for change in said:
        logger.warning("%s", change)
    return changes + said


def _plan(
    cfg: DictConfig, found: NamedBackbone, pretrained: bool, pyramid: bool
) -> tuple[dict[Path, Any], list[Change]]:
    """Every value to be set, by its path, and what there is to say beside; changes nothing."""
    path = _backbone_path(cfg)
    old = read(cfg, path)
    below_fpn = path[-1] == "bottom_up"
    network = replace(found, node=found.node.net, pyramid=found.node) if is_pyramid(found.node) else found
    dropped = carry_over(old.net if is_pyramid(old) else old, network)
    if pyramid and (below_fpn or is_pyramid(old)):
        found = network  # whose pyramid takes the place of the one that is there
    said = [Change(".".join(map(str, (*path, one.key))), one.value, None, one.why) for one in dropped]
    old_shapes = shapes_of(old, f"the old backbone, {'.'.join(path)},")
    offer = offer_of(found)
    # Beside an FPN other names in the model are those of its outputs.
    after = consumers(cfg, path[:-1] if below_fpn else ("model",), path, old_shapes, deep=not below_fpn)
    edits = _in_place(cfg, path, found, offer, old_shapes, after, pyramid)
    if path != ("model",):
        edits |= preprocessing_edits(cfg, found, has_fpn=below_fpn and path in edits)
    checkpoint = found.checkpoint if pretrained else ""
    if OmegaConf.select(cfg, "train.init_checkpoint") is not None or (checkpoint and _is_extractor(cfg.model)):
        edits[("train", "init_checkpoint")] = checkpoint
    decay, more = layer_decay_edits(cfg, found.node)
    return edits | decay, said + more


def _in_place(
    cfg: DictConfig,
    path: Path,
    found: NamedBackbone,
    offer: Offer,
    old_shapes: Shapes,
    after: dict[Path, list[str]],
    pyramid: bool,
) -> dict[Path, Any]:
    """The edits that put the new backbone where the old one is, with a pyramid where one is needed for its strides."""
    old, below_fpn = read(cfg, path), path[-1] == "bottom_up"
    if pyramid and is_pyramid(old) and not offer.plain and _needs_top_block(cfg, old, old_shapes, after):
        fpn = fpn_around(found, offer, old, old_shapes)
        shapes_of(fpn, f"an FPN around {found.name}")  # it can be built
        return {path: fpn}
    if not _needs_pyramid(offer, old_shapes, after):
        return _with_maps(cfg, path, found, offer, old_shapes, after)
    if not pyramid and (below_fpn or after):
        where = ", ".join(".".join(map(str, place)) for place in after) or ".".join(path[:-1])
        raise ArgumentError(
            f"{found.name} has only feature maps of one stride, and {where} needs others: use it with a pyramid. "
            f"Nothing was changed."
        )
    if not pyramid:
        choose(found.node, offer, [list(offer.shapes)[-1]])
        return {path: found.node}
    name = f"a SimpleFeaturePyramid around {found.name}"
    if below_fpn:
        around = in_place_of_fpn(found, offer, read(cfg, path[:-1]), old_shapes)
        shapes_of(around, name)  # it can be built
        return {path[:-1]: around}
    around = pyramid_around(found, offer, old, old_shapes, needed_of(old_shapes, after))
    shapes = shapes_of(around, name)
    names = match(old_shapes, shapes, after, found.name, below_fpn=False)
    return {path: around, **_rewired(cfg, names, old_shapes, shapes, after)}


def _with_maps(
    cfg: DictConfig, path: Path, found: NamedBackbone, offer: Offer, old_shapes: Shapes, after: dict[Path, list[str]]
) -> dict[Path, Any]:
    """The edits for a backbone that has the maps itself."""
    below_fpn = path[-1] == "bottom_up"
    spare = spare_maps(cfg, after)
    strict = below_fpn and not _is_torchvision_fpn(read(cfg, path[:-1]))
    names = match(old_shapes, offer.shapes, after, found.name, below_fpn=strict, spare=spare)
    choose(found.node, offer, list(dict.fromkeys(names.values())))
    shapes = shapes_of(found.node, found.name)
    edits: dict[Path, Any] = {path: found.node, **_rewired(cfg, names, old_shapes, shapes, after)}
    if below_fpn:
        edits |= rewire_top_block(cfg, path[:-1], names, old_shapes, shapes)
    return edits


def _rewired(
    cfg: DictConfig, names: dict[str, str], old_shapes: Shapes, shapes: Shapes, after: dict[Path, list[str]]
) -> dict[Path, Any]:
    check_heads(cfg, after, names, old_shapes, shapes)
    edits: dict[Path, Any] = {}
    for place, value in after.items():
        edits |= rewire(cfg, place, value, names, old_shapes, shapes)
    return edits


def _needs_pyramid(offer: Offer, old_shapes: Shapes, after: dict[Path, list[str]]) -> bool:
    strides = {shape.stride for shape in offer.shapes.values()}
    return offer.plain and {old_shapes[name].stride for name in needed_of(old_shapes, after)} != strides


def _needs_top_block(cfg: DictConfig, old: DictConfig, old_shapes: Shapes, after: dict[Path, list[str]]) -> bool:
    """Whether something counts on the maps that a pyramid's top block makes; a neck with `num_outs` makes its own."""
    made = set(list(old_shapes)[len(old.scale_factors) :]) - spare_maps(cfg, after)
    return any(made & set(names) for names in after.values())


def _backbone_path(cfg: DictConfig) -> Path:
    model = cfg.model
    if isinstance(model.get("backbone"), DictConfig):
        inner = isinstance(model.backbone.get("bottom_up"), DictConfig)
        return ("model", "backbone", "bottom_up") if inner else ("model", "backbone")
    if is_call(model):
        target = target_of(model)
        if (isinstance(target, type) and issubclass(target, Backbone)) or "stages" in model:
            return ("model",)
    raise ConfigKeyError(f"model has no 'backbone' to swap. It has: {', '.join(map(str, model)) or 'nothing'}.")


def _is_torchvision_fpn(node: DictConfig) -> bool:
    """Whether it takes two maps of one stride, as a DC5 network has them; one with detectron2's names doesn't."""
    from detrex_backbones.backbones.pyramids.torchvision_fpn import TorchvisionFPN

    return is_call(node) and target_of(node) is TorchvisionFPN


def _is_extractor(model: DictConfig) -> bool:
    return is_call(model) and target_of(model) is FeatureExtractor
