"""Norms that become a part of the convolutions before them, for inference."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

from detrex_backbones.errors import ArgumentError
from detrex_backbones.layers.conv import Conv2d
from detrex_backbones.layers.frozen_batch_norm import FrozenBatchNorm2d

__all__ = ["fuse_norms"]

logger = logging.getLogger(__name__)

BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)


@torch.no_grad()
def fuse_norms(module: nn.Module) -> nn.Module:
    """Fold every batch norm of a `Conv2d` into its weight and bias, in place (Jacob et al. 2018, section 3.2).

    What the module computes stays the same, to rounding, without a pass over any map for its norm. `norm` is None
    then and the convolution has a `bias`, so checkpoints are to be loaded before. Other norms stay as they are.

    Args:
        module: of any depth, with `Conv2d` of this library in it. Batch norms that follow other convolutions, as in
            timm's models, can't be told from those that don't; that they stay is logged as a warning.

    Returns:
        `module`.

    Raises:
        ArgumentError: a batch norm in training mode, which normalises by the batch. Nothing is changed then.
    """
    convolutions = [(name, part) for name, part in module.named_modules() if isinstance(part, Conv2d)]
    fused = [(name, conv, conv.norm) for name, conv in convolutions if conv.norm is not None and _foldable(conv.norm)]
    learning = [name for name, _, norm in fused if norm.training and not _is_frozen(norm)]
    if learning:
        raise ArgumentError(
            f"{len(learning)} batch norms are in training mode, that of {learning[0]!r} for one: they normalise by the "
            f"batch, which can't be fused. Call eval() first."
        )
    for _, conv, norm in fused:
        _fuse(conv, norm)
    left = sum(isinstance(part, BATCH_NORMS) for part in module.modules())
    if left:
        logger.warning("%d batch norms are not fused: they are no part of a Conv2d of this library", left)
    return module


def _fuse(conv: Conv2d, norm: nn.Module) -> None:
    frozen: Any = FrozenBatchNorm2d.convert_frozen_batchnorm(norm)
    weight, bias = frozen.fold(conv.weight, conv.bias)
    learns = conv.weight.requires_grad
    conv.weight = nn.Parameter(weight, requires_grad=learns)
    conv.bias = nn.Parameter(bias, requires_grad=learns)
    conv.norm = None


def _foldable(norm: nn.Module) -> bool:
    """A batch norm that has statistics, and whose forward is its class's: no activation in it."""
    return _is_frozen(norm) or (
        type(norm) in (nn.BatchNorm2d, nn.SyncBatchNorm) and getattr(norm, "running_mean", None) is not None
    )


def _is_frozen(norm: nn.Module) -> bool:
    return type(norm) is FrozenBatchNorm2d
