"""Which network a file holds that a config's model refused, and the overrides that would take it.

It is told by `infer_config`, which knows ResNets of this library's, or by the shapes of timm's networks: the former
first where the config has a ResNet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detrex_backbones.checkpoint.options import LoadOptions
from detrex_backbones.config.nodes import is_call
from detrex_backbones.config.targets import describe
from detrex_backbones.errors import CheckpointMatchError, DetrexBackbonesError
from detrex_backbones.zoo.config_from_file import Inferred, infer_config
from detrex_backbones.zoo.timm_network import IS_TAKEN, name_timms_network

__all__ = ["name_the_network"]

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
        raise CheckpointMatchError(f"{error} {text}", error.report) from error


def _text(cfg: DictConfig, checkpoint: str, options: LoadOptions) -> str:
    nodes = list(_nodes(cfg.model, "model"))
    ours = [(path, node) for path, node in nodes if _is_node(node, "stages") and _is_node(node, "stem")]
    timms = [path for path, node in nodes if is_call(node) and describe(node["_target_"]).endswith(".TimmBackbone")]

    def by_inferring() -> str:
        return _resnets(checkpoint, options, *ours[:1])

    def by_shapes() -> str:
        return name_timms_network(cfg, checkpoint, options, next(iter(timms), ""))

    texts = []
    for ask in (by_inferring, by_shapes) if ours else (by_shapes, by_inferring):
        with suppress(DetrexBackbonesError):  # nothing that this way knows
            texts.append(ask())
            if IS_TAKEN in texts[-1]:
                return texts[-1]
    return next(filter(None, texts), "")


def _resnets(checkpoint: str, options: LoadOptions, *place: tuple[str, DictConfig]) -> str:
    """A ResNet of this library's, and the overrides of the config's own one."""
    found = infer_config(checkpoint, options.source, options.prefix, options.container)
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


def _overrides(node: DictConfig, found: Inferred, path: str) -> list[str]:
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
