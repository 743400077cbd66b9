"""Which modules of a timm network to compute again in the backward pass: those between two maps, as large as can be."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from timm.models import FeatureListNet
from torch import nn

from detrex_backbones.backbones.recompute import recompute_chain, recompute_modules
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
        for chain in _chains(net, reach, [index in chosen for index in sorted(indices)]):
            recompute_chain([net[name] for name in chain])


def _chains(net: FeatureListNet, reach: Reach, wanted: Sequence[bool]) -> list[list[str]]:
    """The names of the layers in front of each wanted map, where they can be called as one."""
    chains: list[list[str]] = [[]]
    for name in net:
        chains[-1].append(name)
        if name in net.return_layers:
            chains.append([])
    return [
        chain
        for chain, is_wanted in zip(chains, wanted, strict=False)  # behind the last map there is nothing to recompute
        if is_wanted and len(chain) > 1 and chain[0] not in reach.in_place and all(reach.calls[x] == 1 for x in chain)
    ]


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
