"""Which network a file holds that a config's model refused, and the overrides that would take it.

ResNets are told by their names and shapes; the networks of ready configs and timm's by trying: each that is named takes
the file.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detrex_backbones.checkpoint.files import open_checkpoint
from detrex_backbones.checkpoint.match.refusals import ASK
from detrex_backbones.checkpoint.options import LoadOptions
from detrex_backbones.config import LazyConfig
from detrex_backbones.config.nodes import clone, is_call
from detrex_backbones.config.targets import describe
from detrex_backbones.errors import CheckpointMatchError, DetrexBackbonesError
from detrex_backbones.text import visible
from detrex_backbones.zoo.infer.from_file import infer_resnet_of
from detrex_backbones.zoo.infer.inferred import InferredResNet
from detrex_backbones.zoo.infer.networks import Fit, fitting_ready, fitting_timm

__all__ = ["name_the_network"]

IS_TAKEN = "Load it with"

# Of `make_stage`, where neither the file nor the config says otherwise.
DEFAULTS = {"num_groups": 1, "width_per_group": 64, "reduce_first": 1, "shortcut": "conv1x1", "se_reduction": 0}


@contextmanager
def name_the_network(cfg: DictConfig, checkpoint: str, options: LoadOptions) -> Iterator[None]:
    """Add to the error of a file that doesn't fit which network it holds, as far as `infer_config` can tell.

    Args:
        cfg: with the `model` that the file is for.
        checkpoint: as of `load_checkpoint`.
        options: how it is loaded.

    Raises:
        CheckpointMatchError: the same, with more words.
    """
    try:
        yield
    except CheckpointMatchError as error:
        text = _text(cfg, checkpoint, options)
        if not text:
            raise
        raise CheckpointMatchError(f"{str(error).replace(f' {ASK}', '')} {text}", error.report) from error


def _text(cfg: DictConfig, checkpoint: str, options: LoadOptions) -> str:
    nodes = list(_nodes(cfg.model, "model"))
    ours = [(path, node) for path, node in nodes if _is_node(node, "stages") and _is_node(node, "stem")]
    timms = [path for path, node in nodes if is_call(node) and describe(node["_target_"]).endswith(".TimmBackbone")]

    def as_resnet() -> str:
        return _resnet(checkpoint, options, *ours[:1])

    def as_timms() -> str:
        return _named(cfg, checkpoint, _fitting_timm(cfg, checkpoint, options, next(iter(timms), "")))

    def as_ready() -> str:
        with open_checkpoint(checkpoint, options.container) as opened:
            return _named(cfg, checkpoint, fitting_ready(opened, options))

    ways = (as_timms, as_ready, as_resnet) if timms else (as_ready, as_timms, as_resnet)
    texts = []
    for ask in (as_resnet, *ways[:2]) if ours else ways:
        with suppress(DetrexBackbonesError):  # nothing that this way knows
            texts.append(ask())
            if IS_TAKEN in texts[-1]:
                return texts[-1]
    return next(filter(None, texts), "")


def _fitting_timm(cfg: DictConfig, checkpoint: str, options: LoadOptions, wrapper: str) -> list[Fit]:
    """timm's networks that take the file: in the config's TimmBackbone, where it has one."""

    def node_of(name: str) -> DictConfig:
        model: DictConfig = LazyConfig.apply_overrides(clone(cfg), [f"{wrapper}.model_name={name}"]).model
        return model

    with open_checkpoint(checkpoint, options.container) as opened:
        fits = fitting_timm(opened, options, node_of if wrapper else None)
    return [replace(fit, override=f"{wrapper}.model_name={fit.bare}") for fit in fits] if wrapper else fits


def _named(cfg: DictConfig, checkpoint: str, fits: list[Fit]) -> str:
    """Sentences that name the network, or the few that it may be; "" where none or too many fit."""
    if not fits or ("backbone" in cfg and not fits[0].override):
        return ""  # `backbone=` is a key of such a config, and swaps nothing
    names = [fit.called for fit in fits]
    more = f", or {', '.join(names[1:])}, which have the same names and shapes" if names[1:] else ""
    override = fits[0].override or f"backbone={fits[0].name}"
    if not fits[0].override and OmegaConf.select(cfg, "train.init_checkpoint") == checkpoint == visible(checkpoint):
        override += f" train.init_checkpoint={shlex.quote(checkpoint)}"  # swapping names other weights there
    return f"The file holds {names[0]}{more}. {IS_TAKEN} {override}."


def _resnet(checkpoint: str, options: LoadOptions, *place: tuple[str, DictConfig]) -> str:
    """A ResNet of this library's, and the overrides of the config's own one."""
    found = infer_resnet_of(checkpoint, options)
    if found is None:
        return ""
    arguments = ", ".join(f"{name}={value!r}" for name, value in found.stages.items())
    text = f"The file holds a ResNet in {found.source} names with a {found.stem[0]} and stages of {arguments}."
    if not place:
        plain = not set(found.stages) - {"depth"} and found.stem[0] == "BasicStem"
        return f"{text} {IS_TAKEN} backbone=resnet{found.stages['depth']}." if plain else text
    ((path, node),) = place
    overrides = _overrides(node, found, path)
    return f"{text} {IS_TAKEN} {' '.join(overrides)}." if overrides else text


def _nodes(node: Any, path: str) -> Iterator[tuple[str, DictConfig]]:
    """Every mapping in a config, with its path; none that is written as an interpolation."""
    if not isinstance(node, DictConfig):
        return
    yield path, node
    for key in map(str, node):
        if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            yield from _nodes(node[key], f"{path}.{key}")


def _is_node(node: DictConfig, key: str) -> bool:
    return isinstance(node.get(key), DictConfig)


def _overrides(node: DictConfig, found: InferredResNet, path: str) -> list[str]:
    """What to change in a ResNet's node; nothing where its stem or its stages are made otherwise."""
    if not is_call(node.stages) or not describe(node.stem["_target_"]).endswith(f".{found.stem[0]}"):
        return []
    given: Mapping[Any, Any] = node.stages
    wanted = {name: found.stages.get(name, default) for name, default in DEFAULTS.items()} | found.stages
    return [
        f"{path}.stages.{name}={value}"
        for name, value in wanted.items()
        if given.get(name, DEFAULTS.get(name, object())) != value
    ]
