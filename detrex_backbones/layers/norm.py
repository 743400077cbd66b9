"""From what a config says about normalisation to the layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from detrex_backbones.errors import ArgumentError, closest
from detrex_backbones.kinds import kinds_checked
from detrex_backbones.layers.frozen_batch_norm import FrozenBatchNorm2d
from detrex_backbones.layers.sync_batch_norm import NaiveSyncBatchNorm

__all__ = ["LayerNorm2d", "Norm", "get_norm", "norm_layer"]

Norm: TypeAlias = str | Callable[[int], nn.Module] | None

GROUPS = 32  # of GroupNorm (Wu and He, 2018), for every width


@kinds_checked
class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of each pixel (Ba et al. 2016, as ConvNeXt and ViTDet apply it).

    Args:
        num_features: channels C of the input (N, C, H, W).
        eps: added to the variance.
    """

    def __init__(self, num_features: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` of shape (N, C, H, W); the result has its shape."""
        channels_last = x.permute(0, 2, 3, 1)
        normalised = nn.functional.layer_norm(channels_last, self.weight.shape, self.weight, self.bias, self.eps)
        return normalised.permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"


def _group_norm(channels: int) -> nn.GroupNorm:
    if channels % GROUPS:
        raise ArgumentError(
            f"norm='GN' makes {GROUPS} groups, which do not divide {channels} channels: choose widths that are "
            f"multiples of {GROUPS}, or pass a callable such as `lambda channels: nn.GroupNorm(8, channels)`."
        )
    return nn.GroupNorm(GROUPS, channels)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BN": nn.BatchNorm2d,
    "SyncBN": nn.SyncBatchNorm,
    "FrozenBN": FrozenBatchNorm2d,
    "GN": _group_norm,
    "LN": LayerNorm2d,
    "nnSyncBN": nn.SyncBatchNorm,
    "naiveSyncBN": NaiveSyncBatchNorm,
    "naiveSyncBN_N": partial(NaiveSyncBatchNorm, stats_mode="N"),
}


def get_norm(norm: Norm, out_channels: int) -> nn.Module | None:
    """The normalisation layer for `out_channels` channels. Names are detectron2's.

    Args:
        norm: "BN", "SyncBN" or "nnSyncBN", "naiveSyncBN" or "naiveSyncBN_N" (see `NaiveSyncBatchNorm`), "FrozenBN",
            "GN" (32 groups) or "LN" (channels of each pixel); "" or None for none; or a class or callable that takes
            the number of channels and returns the layer.
        out_channels: channels C of what is normalised, (N, C, H, W).

    Returns:
        The layer, or None for no normalisation.

    Raises:
        ArgumentError: for a name that isn't one of these, or a callable that returns no module.
    """
    if norm is None or norm == "":
        return None
    make: Any = norm
    if isinstance(norm, str):
        if norm not in NORMS:
            raise ArgumentError(
                f"norm={norm!r} is not known. Allowed: {', '.join(map(repr, NORMS))}, '' or None for no norm, or a "
                f"callable that takes the number of channels.{closest(norm, NORMS)}"
            )
        make = NORMS[norm]
    elif not callable(norm):
        raise ArgumentError(f"norm={norm!r} is a {type(norm).__name__}. Allowed: a name, a class or a callable.")
    layer = make(out_channels)
    if not isinstance(layer, nn.Module):
        raise ArgumentError(f"norm={norm!r} returned a {type(layer).__name__} for {out_channels} channels, no module.")
    return layer


def norm_layer(norm: Norm) -> Callable[[int], nn.Module] | None:
    """What torchvision's modules take as `norm_layer`: from channels to the layer of `get_norm`; None for none."""
    make: Any = partial(get_norm, norm)  # which gives None for these two alone
    return None if norm is None or norm == "" else make
