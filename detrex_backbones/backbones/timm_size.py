"""Which image sizes a timm model runs: made as many as timm can, and then measured rather than listed.

What a size gives is found by running a twin of the network on the meta device: shapes alone, no weights, no numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from detrex_backbones.backbones.timm_build import create, parameters_of

__all__ = ["any_size_kwargs", "as_maps", "divisibility", "runs"]


def any_size_kwargs(model_name: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that let a model of one size run others, for models whose class takes them.

    Windowed transformers (Swin and its kin) stop insisting on their size; plain ones resize their position embedding.
    """
    if kwargs.get("feature_cls") == "fx":
        return {}  # a traced graph keeps the size that it was traced at
    takes = parameters_of(model_name)
    if "strict_img_size" in takes:
        wanted = {"strict_img_size": False}
    else:
        wanted = {name: True for name in ("dynamic_img_size", "dynamic_img_pad") if name in takes}
    return {name: value for name, value in wanted.items() if name not in kwargs}


def as_maps(outputs: Any, channels_last: bool) -> list[Tensor]:
    """What any of timm's wrappers returns -> maps (N, C, H, W)."""
    maps = list(outputs.values()) if isinstance(outputs, Mapping) else list(outputs)
    return [value.permute(0, 3, 1, 2).contiguous() for value in maps] if channels_last else maps


def twin(model_name: str, out_indices: list[int], kwargs: Mapping[str, Any]) -> nn.Module:
    """The same network on the meta device."""
    with torch.device("meta"):
        return create(model_name, out_indices, kwargs).eval()


@torch.no_grad()
def runs(net: nn.Module, channels: int, height: int, width: int) -> list[tuple[int, ...]] | None:
    """The shapes of a twin's outputs for one image of this size, or None where it can't run it."""
    try:
        outputs = net(torch.empty(1, channels, height, width, device="meta"))
    except Exception:
        # The question is whether it runs. Why not, the real network says.
        return None
    return [tuple(value.shape) for value in as_maps(outputs, channels_last=False)]


def divisibility(net: nn.Module, channels: int, strides: list[int], channels_last: bool) -> int:
    """The least that H and W must be multiples of for maps of ceil(H / stride) by ceil(W / stride); 0 for any size.

    Args:
        net: the twin.
        channels: of the image.
        strides: of the maps, in the order of the network.
        channels_last: whether the network's maps are (N, H, W, C).
    """
    info: Any = net.feature_info
    largest = math.lcm(*strides, *(entry["reduction"] for entry in info.info))
    period = largest * math.ceil(64 / largest)
    where = 1 if channels_last else 2
    for step in (1, *sorted({*strides, largest})):
        # Two sizes that are multiples of the step and of nothing larger.
        sizes = [(3 * period + step, 4 * period - step), (4 * period - step, 3 * period + step)]
        for height, width in sizes:
            shapes = runs(net, channels, height, width)
            exact = [(math.ceil(height / stride), math.ceil(width / stride)) for stride in strides]
            if shapes is None or [shape[where : where + 2] for shape in shapes] != exact:
                break
        else:
            return 0 if step == 1 else step
    return max(strides)
