"""Freezing of timm models: every batch norm, or everything that a stage depends on."""

from __future__ import annotations

from typing import Any

from timm.layers import freeze_batch_norm_2d
from torch import nn

from detrex_backbones.backbones.timm.reach import Reach
from detrex_backbones.errors import ArgumentError
from detrex_backbones.layers import FrozenBatchNorm2d

__all__ = ["check_freeze_at", "freeze_norms"]


def freeze_norms(module: nn.Module) -> nn.Module:
    """Freeze every batch norm: ours for plain ones, timm's frozen form for those that also apply an activation."""
    frozen: nn.Module = freeze_batch_norm_2d(FrozenBatchNorm2d.convert_frozen_batchnorm(module))
    return frozen


def check_freeze_at(reach: Reach, model_name: str, freeze_at: Any) -> None:
    """Refuse, by an ArgumentError, what is no number of stages that the network has; see `TimmBackbone`."""
    stages, known = reach.stages, reach.has_stem or reach.before is not None
    if isinstance(freeze_at, bool) or not isinstance(freeze_at, int) or freeze_at not in range(len(stages) + 2):
        allowed = f"0 (nothing), 1 (all before {stages[0]}) to {len(stages) + 1} (up to {stages[-1]})"
        raise ArgumentError(f"freeze_at={freeze_at!r} is out of range for {model_name}. Allowed: {allowed}.")
    if freeze_at == 1 and not known:
        raise ArgumentError(
            f"freeze_at=1: which part of timm's {model_name} comes before its first stage, {stages[0]}, is not known. "
            f"Allowed: 0 (nothing), 2 (up to {stages[0]}) to {len(stages) + 1} (up to {stages[-1]})."
        )
