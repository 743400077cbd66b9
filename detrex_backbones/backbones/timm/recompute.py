"""Which modules of a timm network to compute again in the backward pass: those between two maps, as large as can be."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from timm.models import FeatureListNet
from torch import Tensor, nn

from detrex_backbones.backbones.recompute import recompute_modules, run_recomputed
from detrex_backbones.backbones.timm.reach import Reach

__all__ = ["recompute_between"]


def recompute_between(net: nn.Module, reach: Reach, indices: Sequence[int], chosen: Collection[int]) -> None:
    """Let a network compute again, in the backward pass, what lies between a chosen map and the map before it.

    Args:
        net: the network, whose modules are changed.
        reach: of all its maps.
        indices: the maps that are asked for.
        chosen: those of them before which things are computed again.
    """
    names = _modules_between(net, reach, indices, chosen)
    recompute_modules(net, names)
    if not names and isinstance(net, FeatureListNet):  # single layers in a row, such as VGG's
        net._collect = _InRows(net, [index in chosen for index in sorted(indices)], reach.in_place)


class _InRows:
    """The `_collect` of a `FeatureListNet` that computes the layers in front of a map again as if they were one module.

    Layers are looked up at each call, since they may be exchanged: frozen, fused, converted.
    """

    def __init__(self, net: FeatureListNet, wanted: Sequence[bool], in_place: Collection[str]) -> None:
        self.net, self.wanted, self.in_place = net, wanted, in_place

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = {}
        row: list[str] = []
        for name in self.net:
            row.append(name)
            if name in self.net.return_layers:
                layers = nn.Sequential(*(self.net[layer] for layer in row))
                again = self.wanted[len(maps)] and row[0] not in self.in_place and torch.is_grad_enabled()
                maps[self.net.return_layers[name]] = x = run_recomputed(layers, x) if again else layers(x)
                row = []
        return maps


def _modules_between(net: nn.Module, reach: Reach, indices: Sequence[int], chosen: Collection[int]) -> list[str]:
    """The outermost modules of a network that lie between a chosen map and the map before it.

    A module counts where one call takes it, which doesn't change its input in place: what is computed again would else
    start from other values.
    """
    level: dict[str, int] = {}
    maps = dict(zip(reach.indices, reach.maps, strict=True))
    for index in sorted(indices):
        for name in maps[index]:
            level.setdefault(name, index)
    return _outermost(net, "", reach, {name: index for name, index in level.items() if index in chosen})


def _outermost(module: nn.Module, name: str, reach: Reach, level: dict[str, int]) -> list[str]:
    found = []
    for key, child in module.named_children():
        path = f"{name}.{key}" if name else key
        own = [parameter for parameter, _ in child.named_parameters(path)]
        levels = {level.get(parameter) for parameter in own}
        parts = [part for part in child.modules() if next(part.parameters(recurse=False), None) is not None]
        once = reach.calls[path] == 1 and path not in reach.in_place
        if once and len(parts) > 1 and len(levels) == 1 and None not in levels:
            found.append(path)
        elif levels - {None}:
            found += _outermost(child, path, reach, level)
    return found
