"""Which image sizes a timm model runs: made as many as timm can, and then measured rather than listed.

What a size gives is found by running the same network on the meta device: shapes alone, no weights, no numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from detrex_backbones.backbones.timm.build import create, parameters_of
from detrex_backbones.errors import ArgumentError

__all__ = [
    *("Sizes", "any_size_kwargs", "as_maps", "find_sizes", "made_size", "meta_network", "run_shapes"),
    "size_that_fits",
]


def any_size_kwargs(model_name: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that let a model of one size run others, for models whose class takes them.

    Windowed transformers (Swin and its relatives) stop insisting on their size; plain ones resize their positions.
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


def meta_network(model_name: str, out_indices: list[int], kwargs: Mapping[str, Any]) -> nn.Module:
    """The same network on the meta device."""
    with torch.device("meta"):
        return create(model_name, out_indices, kwargs).eval()


def made_size(model_name: str, kwargs: Mapping[str, Any]) -> tuple[int, int]:
    """(H, W) that a model is made for: `img_size`, or that of its weights."""
    cfg: Any = timm.get_pretrained_cfg(model_name)
    size = kwargs.get("img_size") or (cfg.input_size[1:] if cfg else 224)
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


@torch.no_grad()
def run_shapes(net: nn.Module, channels: int, height: int, width: int) -> list[tuple[int, ...]] | None:
    """The shapes of what a network on the meta device gives for one image of this size; None where it can't run it."""
    try:
        outputs = net(torch.empty(1, channels, height, width, device="meta"))
    except Exception:
        # The question is whether it runs. Why not, the real network says.
        return None
    return [tuple(value.shape) for value in as_maps(outputs, channels_last=False)]


@dataclass(frozen=True)
class Sizes:
    """Which images a network runs.

    Args:
        step: what H and W must be multiples of; 0 for any size.
        only: (H, W) that the network is bound to, None where it runs others.
        exact: whether the maps of such images are ceil(H / stride) by ceil(W / stride).
    """

    step: int
    only: tuple[int, int] | None = None
    exact: bool = True


def find_sizes(net: nn.Module, channels: int, strides: list[int], channels_last: bool, own: tuple[int, int]) -> Sizes:
    """Which images a network on the meta device runs, by trial.

    `strides` are those of its maps, in its order; `channels_last` says that these are (N, H, W, C); `own` is the (H, W)
    that it was made for.
    """

    def maps(height: int, width: int, exact: bool) -> bool:
        shapes = run_shapes(net, channels, height, width)
        where = 1 if channels_last else 2
        full = [(math.ceil(height / stride), math.ceil(width / stride)) for stride in strides]
        return shapes is not None and (not exact or [shape[where : where + 2] for shape in shapes] == full)

    info: Any = net.feature_info
    largest = math.lcm(*strides, *(entry["reduction"] for entry in info.info))
    for exact in (True, False):
        for step in () if _looks_values_up(net) else _steps(strides, largest, own):
            # Two sizes that are multiples of the step and of nothing larger.
            common = math.lcm(largest, step)
            period = common * math.ceil(64 / common)
            long, short = 6 * period - step, 3 * period + step
            if maps(long, short, exact) and maps(short, long, exact):
                return Sizes(0 if step == 1 else step, exact=exact)
    if not maps(*own, exact=False):
        return Sizes(largest)  # it needs values to run at all, so that nothing can be measured
    return Sizes(math.gcd(*own), only=own, exact=maps(*own, exact=True))


def _steps(strides: list[int], largest: int, own: tuple[int, int]) -> list[int]:
    """What H and W may have to be multiples of, the least first: strides, or windows of a fixed number of pixels."""
    whole = math.lcm(*own)
    windows = {step for step in range(largest, whole + 1, largest) if whole % step == 0}
    return [1, *sorted({*strides, largest, *windows} - {1})]


def _looks_values_up(net: nn.Module) -> bool:
    """Whether it indexes tables of its own size by computed positions, which a network without values can't show."""
    return any(type(module).__name__ == "MultiScaleVit" for module in net.modules())


def size_that_fits(
    model_name: str, out_indices: list[int], kwargs: Mapping[str, Any], channels: int, height: int, width: int
) -> tuple[int, int] | None:
    """The size nearest to (height, width) that the model runs once it is made with `img_size=` for it, or None."""
    padded = [-(-side // 32) * 32 for side in (height, width)]
    for size in ((padded[0], padded[1]), (max(padded), max(padded))):
        try:
            if (
                run_shapes(meta_network(model_name, out_indices, {**kwargs, "img_size": size}), channels, *size)
                is not None
            ):
                return size
        except ArgumentError:
            continue
    return None
