"""From the name of a ready config to a model with its weights: what knows configs, backbones and checkpoints alike."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from detrex_backbones.backbones.base import Backbone
from detrex_backbones.backbones.declared import check_at_first_forward
from detrex_backbones.checkpoint.load import load_checkpoint
from detrex_backbones.checkpoint.match.frozen_modules import frozen_but_not_loaded
from detrex_backbones.checkpoint.match.refusals import check_random_maps
from detrex_backbones.checkpoint.options import LoadOptions
from detrex_backbones.checkpoint.report import LoadReport
from detrex_backbones.config import instantiate
from detrex_backbones.errors import ConfigKeyError, ConfigTypeError, DeviceError
from detrex_backbones.layers.init import skip_random_init
from detrex_backbones.text import shorten
from detrex_backbones.zoo.infer.refused import name_the_network
from detrex_backbones.zoo.own_names import find_option
from detrex_backbones.zoo.whole_config import with_model

__all__ = [
    *("build_and_load", "build_for_maps", "build_model", "build_model_with_report", "find_device", "load_options"),
]

logger = logging.getLogger(__name__)


def build_model(cfg: DictConfig) -> nn.Module:
    """The model of a config, on its device, with its weights.

    Args:
        cfg: `model` is what is built; where there is only a `backbone`, see `with_model`. `train.device` is where it
            is put: "" or absent for the GPU if there is one, else the CPU. `train.init_checkpoint` is what is loaded:
            "" or absent leaves the weights random. `train.load_options`, where it is there, holds keywords of
            `load_checkpoint`: `stem_adapt="repeat"`.

    Returns:
        The model, in training mode as every new module. A backbone in it whose first maps contradict its
        `output_shape()` is an ArgumentError at that forward.

    Raises:
        ConfigKeyError: there is no `model`.
        DeviceError: the device isn't there.
        CheckpointError: the checkpoint can't be read or doesn't fit.
    """
    return build_model_with_report(cfg)[0]


def build_model_with_report(cfg: DictConfig) -> tuple[nn.Module, LoadReport | None]:
    """What `build_model` returns, and the report of the load; None without a checkpoint."""
    assumed = with_model(cfg)
    if assumed:
        logger.warning("the config has only a backbone: %s", assumed)
    if "model" not in cfg:
        raise ConfigKeyError(f"the config has no 'model' to build. It has: {', '.join(map(str, cfg)) or 'nothing'}.")
    # Asked for first: a device that isn't there should not cost the time of building.
    device = find_device(OmegaConf.select(cfg, "train.device"))
    checkpoint = OmegaConf.select(cfg, "train.init_checkpoint", default="") or ""
    options = load_options(cfg)
    if checkpoint:
        with name_the_network(cfg, checkpoint, options):
            model, report = build_and_load(cfg.model, checkpoint, options, device)
    else:
        model, report = instantiate(cfg.model).to(device), None
        logger.warning("train.init_checkpoint is empty: the weights are random")
    for module in model.modules():
        if isinstance(module, Backbone):
            check_at_first_forward(module)
    frozen = frozen_but_not_loaded(model, report)
    if frozen:
        logger.warning("frozen, but not loaded from a checkpoint: %s", shorten(frozen))
    return model, report


def build_for_maps(cfg: DictConfig, instead: str = "") -> tuple[nn.Module, LoadReport | None]:
    """What `build_model_with_report` returns, refused where a checkpoint leaves random weights before the maps.

    Args:
        cfg: as of `build_model`.
        instead: how to go without what is random, as a sentence of the error; "" where there is no way.

    Raises:
        CheckpointMatchError: a pyramid, say, stays random, and `train.load_options.allow_missing` doesn't allow it.
    """
    model, report = build_model_with_report(cfg)
    if report is not None:
        check_random_maps(report, load_options(cfg).allow_missing, instead)
    return model, report


def build_and_load(
    node: DictConfig, checkpoint: str, options: LoadOptions | None = None, device: torch.device | str = "cpu"
) -> tuple[nn.Module, LoadReport]:
    """A model from its node, with its weights: built once, the file read once.

    Random weights are drawn only if the checkpoint leaves some, and afterwards: drawing takes longer than all the rest.

    Args:
        node: what is built.
        checkpoint: as of `load_checkpoint`.
        options: how it is loaded.
        device: where the model is put.

    Raises:
        CheckpointError: the checkpoint can't be read or doesn't fit.
    """
    with skip_random_init() as skipped:
        model: nn.Module = instantiate(node)
    skipped.move(model, torch.device(device))
    report = load_checkpoint(model, checkpoint, **vars(options or LoadOptions()))
    tensors = {**dict(model.named_buffers()), **dict(model.named_parameters(remove_duplicate=False))}
    filled = {id(tensors[item.model_key]) for item in report.loaded if item.model_key in tensors}
    if any(skipped.is_empty(tensor) and id(tensor) not in filled for tensor in tensors.values()):
        skipped.draw(tensor for tensor in tensors.values() if id(tensor) in filled)
    return model, report


def load_options(cfg: DictConfig, **others: Any) -> LoadOptions:
    """How the checkpoint of a config is to be loaded: `train.load_options`, and what is given here instead.

    Raises:
        ConfigTypeError: `train.load_options` is no section.
        ArgumentError: it has a key that is no option of a load.
        ConfigError: its `source` is a file that can't be run.
    """
    stated = OmegaConf.select(cfg, "train.load_options") or {}
    if not isinstance(stated, Mapping | DictConfig):
        raise ConfigTypeError(
            f"train.load_options={stated!r} is a {type(stated).__name__}. It is a section of keywords of "
            f"load_checkpoint: train.load_options.source=... sets one."
        )
    return LoadOptions.of({name: find_option(name, value) for name, value in {**stated, **others}.items()})


def find_device(name: Any) -> torch.device:
    """The device of this name; for "" or None the GPU if there is one, else the CPU.

    Raises:
        DeviceError: it isn't there.
    """
    cuda = torch.cuda.is_available()
    if name in (None, ""):
        return torch.device("cuda" if cuda else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:  # torch asserts that it was compiled for CUDA
        there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count() if cuda else 0))]
        raise DeviceError(
            f"train.device={name!r} isn't there ({str(error).splitlines()[0]}). On this machine: {', '.join(there)}. "
            f"Leave it empty for the best one."
        ) from error
    return device
