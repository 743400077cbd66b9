"""What networks have in common whose stages give the maps "p0", "p1" and so on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from detrex_backbones.backbones.base import Backbone
from detrex_backbones.backbones.transformer_parts import DropPath, drop_path_rates
from detrex_backbones.errors import ArgumentError

__all__ = [
    "StagedBackbone",
    "add_scaled",
    "check_frozen",
    "drop_paths",
    "freeze_behind",
    "freeze_parameters",
    "freeze_parts",
    "layer_scale",
]


class StagedBackbone(Backbone):
    """A network whose stage i gives the map "p{i}", behind a norm called "norm{i}"."""

    def _set_stages(self, out_indices: Sequence[int], widths: Sequence[int], stride: int = 4) -> None:
        """Say which stages give maps, of which channels; the first has `stride`, each other twice the one before."""
        if not out_indices or len({*out_indices}) != len(out_indices) or not {*out_indices} <= {*range(len(widths))}:
            raise ArgumentError(
                f"out_indices={out_indices!r}: at least one of {[*range(len(widths))]}, none of them twice."
            )
        self.out_indices = tuple(out_indices)
        self._set_maps({f"p{index}": (int(widths[index]), stride * 2**index) for index in self.out_indices})

    def _in_order(self, maps: dict[int, Tensor]) -> dict[str, Tensor]:
        """Stage -> map, as name -> map in the order of `output_shape`."""
        return {f"p{index}": maps[index] for index in self.out_indices}


def drop_paths(last: float, depths: Sequence[int]) -> list[list[DropPath]]:
    """The `DropPath` of each block of each stage; the rates grow from 0 to `last` over all blocks.

    Raises:
        ArgumentError: a rate that isn't a probability.
    """
    rates = iter(drop_path_rates(last, sum(depths)))
    return [[DropPath(next(rates)) for _ in range(depth)] for depth in depths]


def check_frozen(frozen_stages: int, last: int) -> None:
    """Refuse, by an ArgumentError, what is no number from -1 (nothing is frozen) to `last` (everything)."""
    if isinstance(frozen_stages, bool) or frozen_stages not in range(-1, last + 1):
        raise ArgumentError(f"frozen_stages={frozen_stages!r} is out of range. Allowed: -1 (nothing) to {last} (all).")


def freeze_parts(parts: Sequence[nn.Module]) -> None:
    """No gradients for these, and evaluation mode until `train()` says otherwise, as detrex has it."""
    for part in parts:
        part.eval().requires_grad_(False)


def freeze_behind(last: int, stages: nn.ModuleList) -> None:
    """No gradients for the stages behind stage `last`, nor for its `downsample`: they keep their names and never learn.

    Without this DistributedDataParallel waits for gradients that never come.
    """
    for stage in (getattr(stages[last], "downsample", None), *stages[last + 1 :]):
        if isinstance(stage, nn.Module):
            stage.requires_grad_(False)


def freeze_parameters(net: nn.Module, names: Collection[str], freeze_norm: Callable[[nn.Module], nn.Module]) -> None:
    """No gradients for these parameters, in place; and a batch norm that has no others is replaced by a frozen one."""
    for name, module in list(net.named_modules()):
        own = dict(module.named_parameters(name, recurse=False))
        for key, parameter in own.items():
            if key in names:
                parameter.requires_grad_(False)
        if isinstance(module, _BatchNorm) and name and own and set(own) <= set(names):
            parent, _, child = name.rpartition(".")
            setattr(net.get_submodule(parent), child, freeze_norm(module))


def layer_scale(channels: int, start: float | None) -> nn.Parameter | None:
    """Learnt factors of a residual branch, one a channel (CaiT, Touvron et al. 2021); None for none."""
    return None if start is None else nn.Parameter(torch.full((channels,), float(start)))


def add_scaled(x: Tensor, residual: Tensor, gamma: Tensor | None, drop_path: nn.Module) -> Tensor:
    """`x + drop_path(gamma * residual)` in one pass over memory; without a gamma, `x + drop_path(residual)`."""
    residual = drop_path(residual)
    return x + residual if gamma is None else torch.addcmul(x, gamma, residual)
