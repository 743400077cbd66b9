"""From a checkpoint alone to the lazy config of the backbone inside it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from detrex_backbones.checkpoint.fetch import find_known
from detrex_backbones.checkpoint.files import Checkpoint, load_values, only, open_checkpoint
from detrex_backbones.checkpoint.names.conventions import Convention
from detrex_backbones.checkpoint.options import LoadOptions
from detrex_backbones.checkpoint.stated import stated_traits
from detrex_backbones.config.nodes import clone
from detrex_backbones.errors import CheckpointError
from detrex_backbones.text import shorten, visible
from detrex_backbones.zoo.infer.inferred import Inferred, InferredNetwork, InferredResNet
from detrex_backbones.zoo.infer.networks import fitting_networks, try_load
from detrex_backbones.zoo.infer.resnets import check_single, infer_resnet, resnet_readings
from detrex_backbones.zoo.whole_config import find_config

__all__ = ["infer_config", "infer_resnet_of"]

PIXELS = ("pixel_mean", "pixel_std", "input_format")
FROM_THE_NETWORK = "no tensor stores the preprocessing; this is what the network of that name is usually given"


def infer_config(
    path: str | Path, source: str | Convention | None = None, prefix: str | None = None, container: str | None = None
) -> Inferred:
    """Find out which network a file holds: a ResNet by its names and shapes, any other by trying.

    What is given back takes the file: it was tried, without memory for the weights.

    Args:
        path: path of the checkpoint, or the name of known weights.
        source: as of `load_checkpoint`.
        prefix: as of `load_checkpoint`.
        container: as of `load_checkpoint`; None for the weights that a network is known for.

    Raises:
        CheckpointFileError: the file can't be read.
        CheckpointError: no network that is known is in it, several are, or a ResNet that `make_stage` can't make.
    """
    options = LoadOptions(source=source, prefix=prefix, container=container)
    with open_checkpoint(path, container) as opened:
        resnets = only(opened, lambda each: resnet_readings(each, source, prefix))
        problem = None
        check_single(path, resnet_readings(resnets, source, prefix))
        try:
            found: Inferred | None = _resnet(path, resnets, options)
        except CheckpointError as error:  # it isn't make_stage's: of another network, maybe
            found, problem = None, error
        checkpoint = resnets if found else only(opened, lambda each: fitting_networks(each, options))
        found = found or _network(checkpoint, options)
        if found is None:
            raise problem or CheckpointError(
                f"checkpoint {visible(path)!r} holds no ResNet with known key names, and fits no ready config and no "
                f"timm model. It has: {shorten(checkpoint.tensors)}."
            )
        load_values(checkpoint, checkpoint.tensors, owned=False)  # no config for a damaged file: checksums are compared
    return found


def infer_resnet_of(path: str | Path, options: LoadOptions) -> InferredResNet | None:
    """The ResNet in a file; None for none, errors as of `infer_config`."""
    with open_checkpoint(path, options.container) as opened:
        return _resnet(path, only(opened, lambda each: resnet_readings(each, options.source, options.prefix)), options)


def _resnet(path: str | Path, checkpoint: Checkpoint, options: LoadOptions) -> InferredResNet | None:
    """The ResNet that takes the file; with group norms where it has none of the statistics of batch norms."""
    readings = resnet_readings(checkpoint, options.source, options.prefix)
    if not readings:
        return None
    found = infer_resnet(path, readings, *_known(checkpoint))
    options = replace(options, prefix=found.prefix, check_preprocessing="off")
    try:
        try_load(found.node(), checkpoint, options)
    except CheckpointError:
        normed = replace(found, norm="GN")
        with suppress(CheckpointError):
            try_load(normed.node(), checkpoint, options)
            return normed
        raise
    return found


def _network(checkpoint: Checkpoint, options: LoadOptions) -> InferredNetwork | None:
    """The first of the networks that take the file, with the preprocessing that is known of it."""
    fits = fitting_networks(checkpoint, options)
    if not fits:
        return None
    traits, known = _known(checkpoint)
    model: DictConfig = clone(find_config(fits[0].name).model)
    given = {name: traits[name] for name in PIXELS if name in traits}
    for name, value in given.items():
        model[name] = value
    pixels: dict[str, Any] = {name: _plain(model[name]) for name in PIXELS}
    return InferredNetwork(
        source=fits[0].report.source,
        prefix=fits[0].report.prefix,
        known=known,
        preprocessing=pixels,
        assumed={name: (value, FROM_THE_NETWORK) for name, value in pixels.items() if name not in given},
        config=fits[0].name,
        also=tuple(fit.name for fit in fits[1:]),
        model=model,
    )


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else list(value)


def _known(checkpoint: Checkpoint) -> tuple[Mapping[str, Any], str]:
    """What the file says of its network or is known for, and the name of the weights."""
    weight = find_known(checkpoint.path)
    return stated_traits(checkpoint) | (weight.traits if weight else {}), weight.name if weight else ""
