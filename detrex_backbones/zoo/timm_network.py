"""Which network of timm a file holds that a config's model refused, and the override that takes it."""

from __future__ import annotations

import shlex

from omegaconf import DictConfig, OmegaConf

from detrex_backbones.checkpoint.fetch.catalog.timm_shapes import networks_of_shapes
from detrex_backbones.checkpoint.files import Checkpoint, open_checkpoint
from detrex_backbones.checkpoint.load import plan_load
from detrex_backbones.checkpoint.match.refusals import check_report
from detrex_backbones.checkpoint.match.traits import check_traits, traits_of
from detrex_backbones.checkpoint.names.readings import AS_STORED, each_reading
from detrex_backbones.checkpoint.options import LoadOptions
from detrex_backbones.config import LazyCall, LazyConfig
from detrex_backbones.config.nodes import clone
from detrex_backbones.errors import DetrexBackbonesError
from detrex_backbones.text import visible
from detrex_backbones.zoo.meta_build import build_on_meta

__all__ = ["IS_TAKEN", "name_timms_network"]

IS_TAKEN = "It is taken with"
TRIED, NAMED = 8, 4  # networks of the same shapes: more are not built, more fitting ones not named


def name_timms_network(cfg: DictConfig, checkpoint: str, options: LoadOptions, wrapper: str) -> str:
    """Sentences that name the network, or the few that it may be; "" where none or too many fit.

    Each that is named takes the file: it was tried, without weights.

    Args:
        cfg: with the `model` that the file is for.
        checkpoint: as of `load_checkpoint`.
        options: how it is loaded.
        wrapper: path of a TimmBackbone in the config, "model.backbone"; "" where there is none.

    Raises:
        CheckpointError: the file can't be read.
    """
    if not wrapper and "backbone" in cfg:
        return ""  # `backbone=` is a key of this config, and swaps nothing
    with open_checkpoint(checkpoint, options.container) as opened:
        names = _candidates(opened, options)
        tried = {name: _resized(cfg, name, wrapper, opened, options) for name in names if len(names) <= TRIED}
    fewest = min((count for count in tried.values() if count is not None), default=None)
    fitting = [name for name, count in tried.items() if count is not None and count == fewest]
    if not 0 < len(fitting) <= NAMED:
        return ""
    more = f", or {', '.join(fitting[1:])}, which have the same names and shapes" if fitting[1:] else ""
    override = f"{wrapper}.model_name={fitting[0]}" if wrapper else f"backbone=timm/{fitting[0]}"
    if not wrapper and OmegaConf.select(cfg, "train.init_checkpoint") == checkpoint == visible(checkpoint):
        override += f" train.init_checkpoint={shlex.quote(checkpoint)}"  # swapping names timm's weights there
    return f"The file holds timm's {fitting[0]}{more}. {IS_TAKEN} {override}."


def _candidates(opened: Checkpoint, options: LoadOptions) -> list[str]:
    """Networks of these shapes, as the file has them or as a convention reads them."""
    found: list[str] = []
    stored = {name: tensor.shape for name, tensor in opened.tensors.items() if tensor.dtype.is_floating_point}
    found += networks_of_shapes(stored)
    for reading in each_reading(opened.tensors, options.source, options.prefix):
        if reading.source != AS_STORED:
            found += networks_of_shapes(reading.shapes)
    return list(dict.fromkeys(found))


def _resized(cfg: DictConfig, name: str, wrapper: str, opened: Checkpoint, options: LoadOptions) -> int | None:
    """How many values would be changed on their way into this network; None where it doesn't take the file.

    In the config's model where that has a TimmBackbone, alone otherwise.
    """
    from detrex_backbones.backbones.timm import TimmBackbone  # which imports timm

    try:
        if wrapper:
            node = LazyConfig.apply_overrides(clone(cfg), [f"{wrapper}.model_name={name}"]).model
        else:
            node = LazyCall(TimmBackbone)(model_name=name)
        model = build_on_meta(node)
        report = plan_load(model, model.state_dict(), opened, options).report
        check_report(report, options.allow_missing, options.allow_unused)
        check_traits(traits_of(model, report.scope), report, options.check_preprocessing)
    except DetrexBackbonesError:
        return None
    return sum(bool(entry.adapted) for entry in report.loaded)
