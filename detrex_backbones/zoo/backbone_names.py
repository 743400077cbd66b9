"""Backbones by name: ready configs, shorter names for them, and timm's models."""

from __future__ import annotations

import functools
import inspect
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from detrex_backbones.checkpoint.fetch import Preprocessing, Weight, find_known, find_weight, list_weights
from detrex_backbones.config import LazyCall, LazyConfig, instantiate
from detrex_backbones.config.instantiation import target_of
from detrex_backbones.config.nodes import clone, is_call
from detrex_backbones.errors import ArgumentError, ConfigKeyError, ConfigTypeError, closest
from detrex_backbones.zoo.build import build_and_load
from detrex_backbones.zoo.listing import TIMM, ready_backbones, short_names, timm_models
from detrex_backbones.zoo.ready_configs import get_config

__all__ = ["NamedBackbone", "find_backbone", "get_backbone", "keywords", "weights_of"]

logger = logging.getLogger(__name__)

# Whose names may stand for "the weights of this network": classifiers, trained as the ready configs are written.
SCHEMES = ("torchvision://", "gluon://", "pycls://", "open-mmlab://", "mmcls://")


@dataclass(frozen=True)
class NamedBackbone:
    """What a name, a node or a file stands for.

    Args:
        name: what it is called in messages: "resnet/resnet101_dc5_detectron2", "timm/convnext_tiny".
        node: config node of the backbone, for the caller to change.
        preprocessing: mean, standard deviation and channel order of images, None where they aren't known.
        checkpoint: value of `train.init_checkpoint`; "" for none.
        explicit: whether somebody wrote the node down, so that its arguments are meant.
        pyramid: config node of the SimpleFeaturePyramid that it came in, where it was taken out of one.
    """

    name: str
    node: DictConfig
    preprocessing: Preprocessing | None = None
    checkpoint: str = ""
    explicit: bool = False
    pyramid: DictConfig | None = None


def get_backbone(name: str, *, pretrained: bool | str | os.PathLike[str] = False, **arguments: Any) -> nn.Module:
    """A backbone by its name.

        get_backbone("resnet50-dc5", norm="BN")
        get_backbone("timm/convnext_tiny", out_indices=(1, 2, 3), pretrained=True)

    Args:
        name: as `list_backbones` gives it, or "timm/" and a timm model. "-dc5" without a style dilates detectron2's
            way; "-dc5-torchvision" is DETR's.
        pretrained: load the weights that are known under this name; or a path, a URL or a name of weights.
        **arguments: arguments of the backbone, its stages or its stem, whichever takes them: `norm` goes to both of
            these (in timm's models it is `norm_layer`), `in_channels` are the image's.

    Raises:
        ArgumentError: an unknown name or argument, with the closest; no known weights.
        CheckpointError: the weights can't be had or don't fit.
    """
    if not isinstance(name, str):
        raise ArgumentError(f"get_backbone takes a name, not a {type(name).__name__}. For a config node: instantiate.")
    found = find_backbone(name)
    for key, value in arguments.items():
        _set_argument(found, key, value)
    checkpoint = found.checkpoint if pretrained is True else os.fspath(pretrained or "")
    if pretrained and not checkpoint:
        raise ArgumentError(
            f"no weights are known for {found.name!r}. Leave pretrained=False and load a file of yours."
        )
    if pretrained:
        return build_and_load(found.node, checkpoint)[0]
    backbone: nn.Module = instantiate(found.node)
    return backbone


def find_backbone(backbone: Any) -> NamedBackbone:
    """What `swap_backbone` is given, made into a node.

    Args:
        backbone: a name as of `list_backbones`, "timm/<model>", a node of a backbone or of a model with a `backbone`,
            or the path of a config file.

    Raises:
        ArgumentError: an unknown name, with the closest.
        ConfigError: a node or a file that has no backbone.
    """
    if isinstance(backbone, DictConfig):
        return _from_model(backbone, "the node")
    if not isinstance(backbone, str | os.PathLike):
        raise ConfigTypeError(
            f"a backbone is a name, a config node or a config file's path, not {backbone!r:.60} of type "
            f"{type(backbone).__name__}."
        )
    name = os.fspath(backbone)
    if Path(name).suffix in (".py", ".yaml", ".yml") and Path(name).is_file():
        return _from_file(name)
    if name.startswith(TIMM) and not name.endswith(".py"):
        return _from_timm(name)
    return _from_ready(name)


def weights_of(config: str) -> list[Weight]:
    """The classifiers' weights that a ready config takes as it is, best first within each source.

    Args:
        config: its name, "resnet/resnet50". A DC5 network has those of the network that is not dilated.
    """
    plain = config.removesuffix(".py").partition("_dc5_")[0] + ".py"
    fit = [weight for weight in _classifiers() if weight.config == plain and not weight.overrides]
    return sorted(fit, key=lambda weight: (SCHEMES.index(weight.name.partition("//")[0] + "//"), -(weight.top1 or 0)))


def keywords(node: DictConfig) -> dict[str, Any]:
    """The arguments that a node's target takes by name -> their defaults; `inspect.Parameter.empty` for none."""
    try:
        found = inspect.signature(target_of(node)).parameters.values()
    except (TypeError, ValueError):  # written in C
        return {}
    return {one.name: one.default for one in found if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}


@functools.cache
def _classifiers() -> tuple[Weight, ...]:
    return tuple(weight for weight in list_weights(schemes=SCHEMES) if weight.name.startswith(SCHEMES))


def _from_ready(name: str) -> NamedBackbone:
    aliases, ready = short_names(), ready_backbones()
    config = aliases.get(name, name.removesuffix(".py"))
    if config not in ready:
        same = [one for one in ready if one.rpartition("/")[2] == name]
        if same:
            raise ArgumentError(f"{name!r} could be {' or '.join(map(repr, same))}. Say which.")
        timm_near = [TIMM + name] if "/" not in name and name in timm_models() else []
        hint = f" timm has it: {timm_near[0]!r}." if timm_near else closest(name, [*aliases, *ready])
        raise ArgumentError(
            f"there is no backbone {name!r}.{hint} list_backbones() has all {len(ready) + len(aliases)} names; "
            f"'timm/<model>' is any model of timm; a config file ends in .py or .yaml and must exist."
        )
    if name.endswith("-dc5"):
        logger.info("%s is %s: every block of res5 is dilated; %s-torchvision is DETR's kind", name, config, name)
    cfg = get_config(config)
    weights = weights_of(config)
    preprocessing = weights[0].preprocessing if weights else None
    return NamedBackbone(
        config,
        _detached(cfg.model.backbone),
        preprocessing or _own_preprocessing(cfg.model),
        weights[0].name if weights else "",
    )


def _from_timm(name: str) -> NamedBackbone:
    from detrex_backbones.backbones.timm.backbone import TimmBackbone

    model = name.removeprefix(TIMM)
    network, _, tag = model.partition(".")
    models = timm_models()
    if network not in models:
        raise ArgumentError(
            f"timm has no model {network!r}.{closest(network, models)} timm.list_models() has all {len(models)} names."
        )
    weight = find_weight(f"timm://{model}") if tag else find_known(f"timm://{model}")
    node = LazyCall(TimmBackbone)(model_name=model)
    return NamedBackbone(name, node, weight.preprocessing if weight else None, weight.name if weight else "")


def _from_file(path: str) -> NamedBackbone:
    cfg = LazyConfig.load(path)
    if not isinstance(cfg, DictConfig) or "model" not in cfg:
        raise ConfigKeyError(f"{path} has no 'model' whose backbone could be taken.")
    found = _from_model(cfg.model, path)
    checkpoint = OmegaConf.select(cfg, "train.init_checkpoint", default="") or ""
    return NamedBackbone(path, found.node, found.preprocessing, checkpoint or found.checkpoint, explicit=True)


def _from_model(model: DictConfig, name: str) -> NamedBackbone:
    node = model.backbone if "backbone" in model else model
    if not is_call(node):
        raise ConfigTypeError(f"{name} is no backbone: a node made by LazyCall has a _target_, this one has none.")
    own = node.get("pretrained") or node.get("checkpoint_path")  # weights of its own
    known = find_known(f"timm://{node.model_name}") if "model_name" in node and not own else None
    preprocessing = _own_preprocessing(model) or (known.preprocessing if known else None)
    return NamedBackbone(name, _detached(node), preprocessing, known.name if known else "", explicit=True)


def _own_preprocessing(model: DictConfig) -> Preprocessing | None:
    if "pixel_mean" not in model or "pixel_std" not in model:
        return None
    return Preprocessing("own", tuple(model.pixel_mean), tuple(model.pixel_std), model.get("input_format") or "RGB")


def _detached(node: DictConfig) -> DictConfig:
    """A copy that stands alone. Interpolations that lead out of it become what they lead to."""
    copied = clone(node)
    for key in list(node):
        if OmegaConf.is_interpolation(node, key):
            copied[key] = node[key]
    return copied


def _set_argument(found: NamedBackbone, key: str, value: Any) -> None:
    """Set an argument of the backbone or of a node below it: the first that takes it; a norm in all that do."""
    node = found.node
    places = [part for part in (node.get("stages"), node.get("stem")) if isinstance(part, DictConfig)]
    places = [node, *(reversed(places) if key == "in_channels" else places)]
    if key == "norm" and "norm_layer" in keywords(node):
        key = "norm_layer"
    takers = [place for place in places if key in keywords(place)]
    if not takers and _takes_anything(node):
        takers = [node]
    if not takers:
        allowed = sorted({name for place in places for name in keywords(place)} - {"stem", "stages"})
        raise ArgumentError(
            f"{found.name!r} takes no argument {key!r}.{closest(key, allowed)} It takes: {', '.join(allowed)}."
        )
    for taker in takers if key == "norm" else takers[:1]:
        with open_dict(taker):
            taker[key] = value


def _takes_anything(node: DictConfig) -> bool:
    found = inspect.signature(target_of(node)).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in found)
