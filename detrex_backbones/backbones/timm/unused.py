"""What a timm network keeps behind the last map that is asked for: left out, as it could never learn."""

from __future__ import annotations

from typing import Any

from torch import nn

from detrex_backbones.backbones.timm.reach import Reach
from detrex_backbones.backbones.timm.sizes import run_shapes

__all__ = ["LeftOut", "leave_out_unused"]


class LeftOut(nn.Module):
    """In the place of a module that no map depends on: gives back the first thing that it is given."""

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """`x`, as it is."""
        return x


def leave_out_unused(net: nn.Module, reach: Reach, image: tuple[int, int, int]) -> None:
    """Take out of a network, in place, the modules that none of its maps depend on; what can't be taken is frozen.

    Args:
        net: the network that is to be used.
        reach: of a network of the same arguments, which is changed as well: what is left must give maps of the same
            shapes, or nothing is taken out.
        image: channels, H and W of what it was run on.
    """
    used = set().union(*reach.maps)
    learning = {name for name, parameter in reach.net.named_parameters() if parameter.requires_grad}
    unused = learning - used
    if not unused:
        return
    everything = {name for name, _ in reach.net.named_parameters()}
    parts = _outermost(reach.net, "", unused, everything)
    kept = _replace(reach.net, parts)
    if run_shapes(reach.net, *image) == reach.shapes:
        _replace(net, parts)
    else:
        for name, module in kept.items():
            _put(reach.net, name, module)
    for name, parameter in net.named_parameters():
        if name in unused:
            parameter.requires_grad_(False)


def _outermost(module: nn.Module, name: str, unused: set[str], everything: set[str]) -> list[str]:
    """The modules below this one whose parameters are all unused, without those inside them."""
    found = []
    for key, child in module.named_children():
        path = f"{name}.{key}" if name else key
        own = {parameter for parameter in everything if parameter.startswith(f"{path}.")}
        if own and own <= unused:
            found.append(path)
        elif own & unused:
            found += _outermost(child, path, unused, everything)
    return found


def _replace(net: nn.Module, names: list[str]) -> dict[str, nn.Module]:
    """Put a `LeftOut` where these modules are; returns what was there."""
    before = {name: net.get_submodule(name) for name in names}
    for name in names:
        _put(net, name, LeftOut())
    return before


def _put(net: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, key = name.rpartition(".")
    setattr(net.get_submodule(parent), key, module)
