"""Which modules of a timm network to compute again in the backward pass: those between two maps, as large as can be."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import nn

from detrex_backbones.backbones.timm.reach import Reach

__all__ = ["modules_between"]


def modules_between(net: nn.Module, reach: Reach, indices: Sequence[int], chosen: Collection[int]) -> list[str]:
    """The outermost modules of a network that lie between a chosen map and the map before it.

    A module counts where one call takes it, which doesn't change its input in place: what is computed again would else
    start from other values.

    Args:
        net: the network.
        reach: of all its maps.
        indices: the maps that are asked for.
        chosen: those of them before which things are computed again.
    """
    level: dict[str, int] = {}
    for index in sorted(indices):
        for name in reach.maps[index]:
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
