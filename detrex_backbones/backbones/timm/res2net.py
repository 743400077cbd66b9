"""Res2Net's first block as OpenMMLab computes it (Res2Net: Gao et al., 2019)."""

from __future__ import annotations

from timm.models.res2net import Bottle2neck
from torch import nn

from detrex_backbones.errors import ArgumentError

__all__ = ["without_stride1_pool"]


def without_stride1_pool(net: nn.Module, model_name: str) -> nn.Module:
    """The network, changed in place: where a stage's first block has stride 1, its last split isn't averaged.

    Raises:
        ArgumentError: it has no such block.
    """
    blocks = [block for block in net.modules() if isinstance(block, Bottle2neck)]
    pooled = [block for block in blocks if isinstance(block.pool, nn.AvgPool2d) and block.pool.stride == 1]
    if not pooled:
        raise ArgumentError(
            f"stride1_pool=False: {model_name} has no block of Res2Net that pools at stride 1. Leave it True."
        )
    for block in pooled:
        block.pool = None
    return net
