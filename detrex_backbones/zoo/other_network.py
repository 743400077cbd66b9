"""Which network a file holds that a config's model refused, and the overrides that would take it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detrex_backbones.checkpoint.load import LoadOptions
from detrex_backbones.config.nodes import is_call
from detrex_backbones.config.targets import describe
from detrex_backbones.errors import CheckpointError, CheckpointMatchError, DetrexBackbonesError
from detrex_backbones.zoo.config_from_file import Inferred, infer_config

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
    try:
        found = infer_config(checkpoint, options.source, options.prefix, options.container)
    except (CheckpointError, DetrexBackbonesError):
        return ""  # no ResNet, or one that nothing here can name
    arguments = ", ".join(f"{name}={value!r}" for name, value in found.stages.items())
    text = f"The file holds a ResNet in {found.source} names with a {found.stem[0]} and stages of {arguments}."
    path = next(_with_stages(cfg.model, "model"), None)
    if path is None:
        plain = not set(found.stages) - {"depth"} and found.stem[0] == "BasicStem"
        return f"{text} It is taken with backbone=resnet{found.stages['depth']}." if plain else text
    overrides = _overrides(path[1], found, path[0])
    return f"{text} It is taken with {' '.join(overrides)}." if overrides else text


def _with_stages(node: Any, path: str) -> Iterator[tuple[str, DictConfig]]:
    """Where a node of a ResNet stands in a config: the first that has a stem and stages."""
    if not isinstance(node, DictConfig):
        return
    if isinstance(node.get("stages"), DictConfig) and isinstance(node.get("stem"), DictConfig):
        yield path, node
    for key in map(str, node):
        if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            yield from _with_stages(node[key], f"{path}.{key}")


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
