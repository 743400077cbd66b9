"""A feature pyramid over the maps of a backbone, with detectron2's parameter names."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from detrex_backbones.backbones.base import Backbone, check_names
from detrex_backbones.backbones.pyramids.top_blocks import check_top_block, takes_network_map
from detrex_backbones.errors import ArgumentError
from detrex_backbones.kinds import check_whole
from detrex_backbones.layers import Conv2d, get_norm
from detrex_backbones.layers.norm import Norm

__all__ = ["FPN"]


class FPN(Backbone):
    """Maps of several strides made one after the other from the coarsest down (Lin et al. 2017).

    Arguments, parameter names and values are detectron2's; beside it, maps that aren't exactly half as large as the
    one below them are resized to it. Maps are called after their strides: "p2" for 4, "p3" for 8 and so on.

    Parameters: `bottom_up.*`, `fpn_lateral2.weight`, `fpn_output2.weight` and so on, `top_block.*`. `TorchvisionFPN`
    is the one with torchvision's names.

    Args:
        bottom_up: the network underneath.
        in_features: which of its maps, the finest first, each of twice the stride of the one before; None for all.
        out_channels: channels of every map.
        norm: the norm after each convolution, see `get_norm`; "" or None for none, and a bias instead.
        top_block: makes further levels of a map: `LastLevelMaxPool()`, `LastLevelP6P7(...)`, or another module with
            `num_levels` and `in_feature` that returns a list. None for none. Where the network and the pyramid have a
            map of that name ("p5" of a timm model), one with `in_channels` gets the network's.
        fuse_type: how a map and the one above it become one: "sum", or "avg" for their mean.
        square_pad: side in pixels of the square that images are to be padded to; 0 for none.

    Raises:
        ArgumentError: a map that `bottom_up` doesn't have or whose channels it doesn't say, strides that don't double,
            a top_block that doesn't fit, an unknown fuse_type.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str] | None = None,
        out_channels: int = 256,
        norm: Norm = "",
        top_block: nn.Module | None = None,
        fuse_type: str = "sum",
        square_pad: int = 0,
    ) -> None:
        super().__init__()
        shapes = bottom_up.output_shape()
        names = list(shapes) if in_features is None else in_features
        self.in_features = tuple(check_names("in_features", names, shapes))
        if fuse_type not in ("sum", "avg"):
            raise ArgumentError(f"fuse_type={fuse_type!r} is not known. Allowed: 'sum', 'avg'.")
        channels = [shapes[name].channels or 0 for name in self.in_features]
        strides = [shapes[name].stride or 0 for name in self.in_features]
        _check_strides(self.in_features, strides, channels)
        self._stages = [stride.bit_length() - 1 for stride in strides]
        for stage, width in zip(self._stages, channels, strict=True):
            self.add_module(f"fpn_lateral{stage}", _convolution(width, out_channels, 1, norm))
            self.add_module(f"fpn_output{stage}", _convolution(out_channels, out_channels, 3, norm))
        self.top_block = top_block
        self.bottom_up = bottom_up
        self.out_channels = out_channels  # what torchvision's detectors ask for
        self.fuse_type = fuse_type
        self._square_pad = check_whole("square_pad", square_pad)
        self._size_divisibility = strides[-1]
        levels = [f"p{stage}" for stage in self._stages]
        if top_block is not None:
            check_top_block(top_block, [*shapes, *levels])
            self._top_of_network = takes_network_map(top_block, shapes, levels)
            more = range(1, 1 + int(top_block.num_levels))  # type: ignore[arg-type]
            levels += [f"p{self._stages[-1] + level}" for level in more]
            strides += [strides[-1] * 2**level for level in more]
        self._set_maps({name: (out_channels, stride) for name, stride in zip(levels, strides, strict=True)})

    @property
    def size_divisibility(self) -> int:
        """The stride of the coarsest map of the network: for its multiples each map is twice as large as the next."""
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """`square_pad` as `square_size`; 0 asks for nothing."""
        return {"square_size": self._square_pad}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, C, H, W) -> {name: map (N, out_channels, H / stride, W / stride)}, the finest first."""
        below = self.bottom_up(x)
        maps = {}
        above: Tensor | None = None
        for name, stage in zip(reversed(self.in_features), reversed(self._stages), strict=True):
            lateral = self.get_submodule(f"fpn_lateral{stage}")(below[name])
            if above is not None:
                lateral = lateral + F.interpolate(above, size=lateral.shape[-2:], mode="nearest")
                if self.fuse_type == "avg":
                    lateral = lateral / 2
            above = lateral
            maps[f"p{stage}"] = self.get_submodule(f"fpn_output{stage}")(lateral)
        maps = dict(reversed(maps.items()))
        if self.top_block is not None:
            source: str = self.top_block.in_feature  # type: ignore[assignment]
            top = self.top_block(below[source] if self._top_of_network else maps[source])
            maps |= zip(self._out_features[len(maps) :], top, strict=True)
        return maps


def _convolution(in_channels: int, out_channels: int, kernel_size: int, norm: Norm) -> Conv2d:
    layer = get_norm(norm, out_channels)
    conv = Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=layer is None, norm=layer)
    nn.init.kaiming_uniform_(conv.weight, a=1)  # Caffe2's "Xavier"
    return conv


def _check_strides(names: Sequence[str], strides: Sequence[int], channels: Sequence[int]) -> None:
    doubled = all(coarser == 2 * finer for finer, coarser in pairwise(strides))
    if 0 in channels or 0 in strides or not doubled or strides[0] & (strides[0] - 1):
        raise ArgumentError(
            f"an FPN takes maps from fine to coarse whose strides are powers of two and double, but those of "
            f"in_features={list(names)!r} have the strides {list(strides)} and the channels {list(channels)} (0 is "
            f"unknown). A DC5 network's, two of which are equal, go into a TorchvisionFPN."
        )
