"""Freezing of timm models: every batch norm, or everything up to a stage."""

from __future__ import annotations

import re
from typing import Any

from timm.layers import freeze_batch_norm_2d
from torch import nn

from detrex_backbones.errors import ArgumentError
from detrex_backbones.layers import FrozenBatchNorm2d

__all__ = ["freeze_beginning", "freeze_norms"]

# The module up to its first number: some maps are taken within a block, "block2.rep.0", which is frozen as a whole.
STAGE = re.compile(r"\D*\d+[^.]*|.*")


def freeze_norms(module: nn.Module) -> nn.Module:
    """Freeze every BatchNorm2d: ours for plain ones, timm's frozen form for those that also apply an activation."""
    frozen: nn.Module = freeze_batch_norm_2d(FrozenBatchNorm2d.convert_frozen_batchnorm(module))
    return frozen


def freeze_beginning(net: nn.Module, model_name: str, freeze_at: int) -> None:
    """Freeze what comes before a stage, in place: no gradients there, and its batch norms become frozen ones.

    `freeze_at` is that of `TimmBackbone`; an ArgumentError refuses a number that the network has no stage for.
    """
    if freeze_at == 0 and not isinstance(freeze_at, bool):
        return
    stages = _stages(net)
    if isinstance(freeze_at, bool) or freeze_at not in range(len(stages) + 2) or not stages:
        allowed = "0 (nothing)"
        if stages:
            allowed += f", 1 (all before {stages[0]}) to {len(stages) + 1} (up to {stages[-1]})"
        raise ArgumentError(f"freeze_at={freeze_at!r} is out of range for {model_name}. Allowed: {allowed}.")
    for name, module in list(net.named_modules())[: _end(net, stages, freeze_at)]:
        # Those of its children have their turn, unless a stage comes first.
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
        if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm) and name:
            parent, _, child = name.rpartition(".")
            setattr(net.get_submodule(parent), child, freeze_norms(module))


def _end(net: nn.Module, stages: list[str], freeze_at: int) -> int:
    """How many of the network's modules, in order, come before the first stage that stays as it is."""
    names = [name for name, _ in net.named_modules()]
    if freeze_at <= len(stages):
        return names.index(stages[freeze_at - 1])
    return 1 + max(i for i, name in enumerate(names) if name == stages[-1] or name.startswith(stages[-1] + "."))


def _stage(module: str) -> str:
    match = STAGE.match(module)
    return match[0] if match else module


def _stages(net: nn.Module) -> list[str]:
    """The network's stages under the wrapper's names, in order: the modules whose outputs are maps, without a stem."""
    info: Any = net.feature_info
    taps = list(dict.fromkeys(_stage(entry["module"]) for entry in info.info))
    # The first map of many networks is that of the stem: "act1" before "layer1", "stem" before "s1".
    if len(taps) > 1 and re.sub(r"\d+", "", taps[0]) != re.sub(r"\d+", "", taps[1]):
        taps = taps[1:]
    names = {name for name, _ in net.named_modules()}
    found = []
    for tap in taps:
        candidates = (tap, tap.replace(".", "_", 1), f"model.{tap}", f"body.{tap}", f"graph_module.{tap}")
        found += [name for name in candidates if name in names][:1]
    return found
