"""Swap the backbone of a config, and rewire what follows it."""

from __future__ import annotations

import inspect
import logging
import os
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from detrex_backbones.config.nodes import clone, is_call, to_plain
from detrex_backbones.errors import ArgumentError, ConfigKeyError, ConfigValueError
from detrex_backbones.named import NamedBackbone, find_backbone, keywords, shapes_of
from detrex_backbones.rewire import Path, Shapes, consumers, read, rewire, rewire_top_block

__all__ = ["Change", "swap_backbone"]

logger = logging.getLogger(__name__)

ALL_STAGES = ["res2", "res3", "res4", "res5"]
PIXELS = ("pixel_mean", "pixel_std", "input_format")


@dataclass(frozen=True)
class Change:
    """One value of a config that a swap changed.

    Args:
        path: where it stands: "model.neck.in_features".
        old: what it was, None for nothing.
        new: what it is now.
    """

    path: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.path}: {_short(self.old)} -> {_short(self.new)}"


def swap_backbone(
    cfg: DictConfig, backbone: str | os.PathLike[str] | DictConfig, *, pretrained: bool = True
) -> list[Change]:
    """Give a config's model another backbone, in place, and rewire what follows it.

        swap_backbone(cfg, "timm/convnext_tiny")
        swap_backbone(cfg, "resnet101-dc5")
        swap_backbone(cfg, L(TimmBackbone)(model_name="swin_tiny_patch4_window7_224"), pretrained=False)

    Changed are `model.backbone` (in a detectron2 FPN its `bottom_up`); `pixel_mean`, `pixel_std` and `input_format`,
    where the model has them; `train.init_checkpoint`; and whatever names the old backbone's maps or counts their
    channels: `in_features`, `in_channels` beside them, `input_shapes` / `input_shape`, an FPN's `top_block`. There are
    as many maps as before, so `num_outs` and the like stay right.

    The new maps are those of the same strides. Where there is none, as in a DC5 network, it is the map of the same
    name, except under an FPN, which wants each stride twice the last. Shapes are computed without weights.

    `in_channels`, `freeze_at` and whether norms are frozen stay as they were, unless a node or file says them itself.

    Args:
        cfg: with a `model` that has a `backbone`, or is one.
        backbone: a name as of `list_backbones` ("-dc5" alone dilates detectron2's way), "timm/<model>", a node of a
            backbone or of a FeatureExtractor, or a config file's path.
        pretrained: name the weights that are known for it as `train.init_checkpoint`; False empties it.

    Returns:
        What was changed, in order; `str` of each is a line. They are logged at INFO, too.

    Raises:
        ArgumentError: an unknown name, with the closest; no map of a stride that is needed. Nothing is changed then.
        ConfigError: there is no model or no backbone in the config, or in what is given. Nothing is changed then.
    """
    if not isinstance(cfg, DictConfig) or not isinstance(cfg.get("model"), DictConfig):
        raise ConfigKeyError("swap_backbone changes a config that has a 'model'; this one has none.")
    found = find_backbone(backbone)
    edits = _plan(cfg, found, pretrained)
    changes = []
    for path, new in edits.items():
        old = read(cfg, path)
        if to_plain(old) != to_plain(new):
            changes.append(Change(".".join(map(str, path)), old, new))
    try:
        for target in (clone(cfg), cfg):  # a rehearsal first: a config may be read-only somewhere
            for path, new in edits.items():
                _set(target, path, new)
    except Exception as error:
        raise ConfigValueError(f"the config can't be changed: {error}") from error
    for change in changes:
        logger.info("%s", change)
    return changes


def _plan(cfg: DictConfig, found: NamedBackbone, pretrained: bool) -> dict[Path, Any]:
    """Every value to be set, by its path; changes nothing."""
    path = _backbone_path(cfg)
    old = read(cfg, path)
    pyramid = path[-1] == "bottom_up"
    node = found.node
    _carry_over(old, found)
    old_shapes = shapes_of(old, f"the old backbone, {'.'.join(path)},")
    # Beside an FPN other names in the model are those of its outputs.
    after = consumers(cfg, path[:-1] if pyramid else ("model",), path, old_shapes, deep=not pyramid)
    needed = [name for name in old_shapes if any(name in names for names in after.values())] or list(old_shapes)
    offered, index_of = _offered_frozen(found)
    names = _match(old_shapes, offered, needed, found.name, by_name=not pyramid)
    chosen = list(dict.fromkeys(names.values()))
    if index_of is not None:
        node["out_indices"] = [index_of[name] for name in chosen]
    elif "out_features" in keywords(node) and set(ALL_STAGES) >= set(chosen):
        node["out_features"] = chosen
    new_shapes = shapes_of(node, found.name)
    edits: dict[Path, Any] = {path: node}
    for place, value in after.items():
        edits |= rewire(cfg, place, value, names, old_shapes, new_shapes)
    if pyramid:
        edits |= rewire_top_block(cfg, path[:-1], names, old_shapes, new_shapes)
    if path != ("model",):
        edits |= _preprocessing(cfg, found)
    checkpoint = found.checkpoint if pretrained else ""
    if OmegaConf.select(cfg, "train.init_checkpoint") is not None or (checkpoint and _is_extractor(cfg.model)):
        edits[("train", "init_checkpoint")] = checkpoint
    return edits


def _backbone_path(cfg: DictConfig) -> Path:
    from detrex_backbones.backbones.base import Backbone

    model = cfg.model
    if isinstance(model.get("backbone"), DictConfig):
        inner = isinstance(model.backbone.get("bottom_up"), DictConfig)
        return ("model", "backbone", "bottom_up") if inner else ("model", "backbone")
    if is_call(model):
        target = _target(model)
        if (isinstance(target, type) and issubclass(target, Backbone)) or "stages" in model:
            return ("model",)
    raise ConfigKeyError(f"model has no 'backbone' to swap. It has: {', '.join(map(str, model)) or 'nothing'}.")


def _target(node: DictConfig) -> Any:
    from detrex_backbones.config.instantiate import target_of

    return target_of(node)


def _is_extractor(model: DictConfig) -> bool:
    from detrex_backbones.backbones.feature_extractor import FeatureExtractor

    return is_call(model) and _target(model) is FeatureExtractor


# The backbone itself.


def _carry_over(old: DictConfig, found: NamedBackbone) -> None:
    """Channels of the image, freeze_at and frozen norms of the old backbone, into the new node."""
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
    frozen = _is_frozen(norms[0])
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


def _is_frozen(norm: Any) -> bool:
    return norm == "FrozenBN" or getattr(norm, "__name__", str(norm)).endswith("FrozenBatchNorm2d")


def _offered_frozen(found: NamedBackbone) -> tuple[dict[str, Any], dict[str, int] | None]:
    """`_offered`, without a carried-over freeze_at where the new network has no stages to freeze, or fewer."""
    try:
        return _offered(found.node, found.name)
    except ArgumentError as error:
        if found.explicit or not found.node.get("freeze_at") or "freeze_at" not in str(error):
            raise
        logger.warning("freeze_at=%s is not carried over: %s", found.node.freeze_at, error)
        found.node["freeze_at"] = 0
        return _offered(found.node, found.name)


def _offered(node: DictConfig, name: str) -> tuple[dict[str, Any], dict[str, int] | None]:
    """All maps that the new backbone could give, and, where it is timm's, the index of each."""
    if "model_name" in node and "out_indices" in keywords(node):
        if "out_indices" not in node:
            node["out_indices"] = list(range(_count_maps(node.model_name)))
        indices = list(node.out_indices)
        shapes = shapes_of(node, name)
        return shapes, dict(zip(shapes, indices, strict=True))
    if "stages" in node and "out_features" in keywords(node):
        wider = clone(node)
        wider["out_features"] = ALL_STAGES
        try:
            return shapes_of(wider, name), None
        except ArgumentError:  # fewer stages: what the node itself asks for
            pass
    return shapes_of(node, name), None


def _count_maps(model_name: str) -> int:
    import timm
    import torch

    try:
        with torch.device("meta"):
            info: Any = timm.create_model(model_name, features_only=True).feature_info
    except Exception as error:
        raise ArgumentError(f"timm's {model_name!r} gives no feature maps: {type(error).__name__}: {error}") from error
    return len(info.info)


def _match(old: Shapes, new: Shapes, needed: list[str], name: str, *, by_name: bool) -> dict[str, str]:
    """Old map -> new map: of the same stride, of these the one of the same name or else the deepest; then by name."""
    found: dict[str, str] = {}
    for key, shape in old.items():
        free = [other for other in new if new[other].stride == shape.stride and other not in found.values()]
        if free:
            found[key] = key if key in free else free[-1]
        elif by_name and key in ALL_STAGES and key in new and key not in found.values():
            found[key] = key
        elif key in needed:
            has = ", ".join(f"{other} (stride {value.stride})" for other, value in new.items())
            raise ArgumentError(
                f"{name} has no map of stride {shape.stride} for {key} that is not taken. It has: {has}. "
                f"Nothing was changed."
            )
    return {key: value for key, value in found.items() if key in needed} if needed else found


def _preprocessing(cfg: DictConfig, found: NamedBackbone) -> dict[Path, Any]:
    """Mean, standard deviation and channel order, where the model has them and the number of channels is the same."""
    pixels = found.preprocessing
    if pixels is None:
        return {}
    mean = cfg.model.get("pixel_mean")
    if mean is not None and len(mean) != len(pixels.pixel_mean):
        logger.warning("model.pixel_mean has %d channels and stays as it is, with pixel_std", len(mean))
        return {}
    values = (list(pixels.pixel_mean), list(pixels.pixel_std), pixels.input_format)
    takes = keywords(cfg.model) if is_call(cfg.model) else {}
    return {
        ("model", key): value
        for key, value in zip(PIXELS, values, strict=True)
        if key in cfg.model or (key in takes and (key != "input_format" or takes[key] != value))
    }


# Writing, and saying what was written.


def _set(cfg: Any, path: Path, value: Any) -> None:
    node = cfg
    for key in path[:-1]:
        if isinstance(node, DictConfig) and node.get(key) is None:
            with open_dict(node):
                node[key] = {}
        node = node[key]
    value = clone(value) if isinstance(value, DictConfig) else value
    if isinstance(node, DictConfig):
        with open_dict(node):
            node[path[-1]] = value
    else:
        node[path[-1]] = value


def _short(value: Any) -> str:
    """A value in a line: a node by its target and what tells it from others."""
    from detrex_backbones.config.targets import describe

    if isinstance(value, DictConfig) and is_call(value):
        target = describe(value["_target_"]).rpartition(".")[2]
        stages = value.get("stages")
        telling = [f"{key}={value[key]!r}" for key in ("model_name",) if key in value]
        if isinstance(stages, DictConfig):
            said = [key for key in stages if key not in ("_target_", "norm", "stride_in_1x1")]
            telling += [f"{key!s}={stages[key]!r}" for key in said]
        maps = value.get("out_features", value.get("out_indices"))
        telling += [f"maps={list(maps)!r}"] if maps is not None else []
        return f"{target}({', '.join(telling)})"
    plain = to_plain(value)
    if isinstance(plain, dict):
        channels = {
            str(key): item.get("channels", item) if isinstance(item, dict) else item for key, item in plain.items()
        }
        return "{" + ", ".join(f"{key}: {getattr(item, 'channels', item)}" for key, item in channels.items()) + "}"
    return repr(plain)
