"""A pyramid of maps from one map: what gives a plain ViT the scales that detectors want."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from detrex_backbones.backbones.base import Backbone, check_names, first_convolution
from detrex_backbones.backbones.pyramids.top_blocks import check_top_block
from detrex_backbones.errors import ArgumentError
from detrex_backbones.kinds import check_whole
from detrex_backbones.layers import Conv2d, get_norm
from detrex_backbones.layers.norm import Norm

__all__ = ["SimpleFeaturePyramid"]

FACTORS = (4.0, 2.0, 1.0, 0.5)


class SimpleFeaturePyramid(Backbone):
    """Maps of several strides, all made of one (ViTDet, Li et al. 2022). Arguments and names are detectron2's.

    A map of stride 16 and the factors 4, 2, 1, 0.5 give "p2" (stride 4), "p3" (8), "p4" (16) and "p5" (32): "p" and
    log2 of the stride. Two transposed convolutions, one, nothing, or a max pool resize the map; a 1x1 and a 3x3
    convolution follow, each with its norm. Parameters: `net.*`, `simfp_2.0.weight`, `simfp_2.4.norm.bias` and so on.

    Args:
        net: the backbone underneath.
        in_feature: which of its maps.
        out_channels: channels of every map.
        scale_factors: factors that the map is resized by: some of 4, 2, 1, 0.5, each half of the one before it.
        top_block: makes further levels of a map: a module with `num_levels` and `in_feature` that returns a list, such
            as `LastLevelMaxPool()`. None for none.
        norm: the norm after each convolution, see `get_norm`; "" or None for none, and a bias instead.
        square_pad: side in pixels of the square that images are to be padded to; 0 for none.

    Raises:
        ArgumentError: a map that `net` doesn't have, other factors, a top_block that doesn't fit.
    """

    def __init__(
        self,
        net: Backbone,
        in_feature: str,
        out_channels: int,
        scale_factors: Sequence[float],
        top_block: nn.Module | None = None,
        norm: Norm = "LN",
        square_pad: int = 0,
    ) -> None:
        super().__init__()
        shapes = net.output_shape()
        check_names("in_feature", [in_feature], shapes)
        channels, stride = shapes[in_feature].channels, shapes[in_feature].stride
        if channels is None or stride is None:
            raise ArgumentError(f"the net doesn't say how many channels and which stride {in_feature!r} has.")
        self.scale_factors = _check_factors(scale_factors)
        levels = [_level(stride, factor) for factor in self.scale_factors]
        self._stage_names = [f"simfp_{level}" for level in levels]
        for name, factor in zip(self._stage_names, self.scale_factors, strict=True):
            self.add_module(name, _stage(channels, out_channels, factor, norm))
        self.net = net
        self.in_feature = in_feature
        self.out_channels = out_channels  # what torchvision's detectors ask for
        self.top_block = top_block
        if top_block is not None:
            check_top_block(top_block, [*shapes, *(f"p{level}" for level in levels)])
            top: Any = top_block.num_levels
            levels += range(levels[-1] + 1, levels[-1] + 1 + top)
        self._set_maps({f"p{level}": (out_channels, 2**level) for level in levels})
        self._coarsest_stride = 2 ** levels[len(self._stage_names) - 1]
        self._square_pad = check_whole("square_pad", square_pad) or net.padding_constraints.get("square_size", 0)

    def _image_channels(self) -> int:
        return first_convolution(self.net).in_channels

    @property
    def size_divisibility(self) -> int:
        """What `net` asks for: 0 for detectron2's ViT. Maps have the sides that their strides promise for more."""
        return self.net.size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """`square_pad` as `square_size`, what `net` asks for as `size_divisibility`; 0 asks for nothing.

        `size_divisiblity`, which detectron2 misspells and so doesn't pad to, is the stride of the last map before
        `top_block`, or a multiple that `net` also takes. `FeatureExtractor` pads to it.
        """
        multiple = math.lcm(self._coarsest_stride, self.size_divisibility or 1)
        return {
            "size_divisibility": self.size_divisibility,
            "size_divisiblity": multiple,
            "square_size": self._square_pad,
        }

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, C, H, W) -> {name: map (N, out_channels, H / stride, W / stride)}.

        Sides are exact for multiples of the last stride, else rounded as `net` and the layers do it.
        """
        below = self.net(x)
        maps = {
            name: self.get_submodule(stage)(below[self.in_feature])
            for name, stage in zip(self._out_features, self._stage_names, strict=False)
        }
        if self.top_block is not None:
            source: Any = self.top_block.in_feature
            # The net's own map may have the name of one of the pyramid, which then is meant.
            top = self.top_block(maps[source] if source in maps else below[source])
            maps |= zip(self._out_features[len(self._stage_names) :], top, strict=True)
        return maps


def _stage(channels: int, out_channels: int, factor: float, norm: Norm) -> nn.Sequential:
    half, quarter = channels // 2, channels // 4
    resize: list[nn.Module] = []
    if factor == 4.0:
        # Without a norm, something must keep its place: the names count the layers.
        between = get_norm(norm, half) or nn.Identity()
        resize = [nn.ConvTranspose2d(channels, half, 2, stride=2), between, nn.GELU()]
        resize.append(nn.ConvTranspose2d(half, quarter, 2, stride=2))
        channels = quarter
    elif factor == 2.0:
        resize = [nn.ConvTranspose2d(channels, half, 2, stride=2)]
        channels = half
    elif factor == 0.5:
        resize = [nn.MaxPool2d(2, stride=2)]
    bias = norm is None or norm == ""
    return nn.Sequential(
        *resize,
        Conv2d(channels, out_channels, 1, bias=bias, norm=get_norm(norm, out_channels)),
        Conv2d(out_channels, out_channels, 3, padding=1, bias=bias, norm=get_norm(norm, out_channels)),
    )


def _level(stride: int, factor: float) -> int:
    level = math.log2(stride / factor)
    if level != int(level) or level < 0:
        raise ArgumentError(
            f"scale factor {factor:g} of a map of stride {stride} gives stride {stride / factor:g}; the maps are named "
            f"after log2 of it, so it must be a power of two."
        )
    return int(level)


def _check_factors(scale_factors: Sequence[float]) -> tuple[float, ...]:
    factors = tuple(scale_factors) if isinstance(scale_factors, Sequence) else ()
    halved = all(first == 2 * second for first, second in pairwise(factors))
    if not factors or not set(factors) <= set(FACTORS) or not halved:
        raise ArgumentError(
            f"scale_factors={scale_factors!r}: some of {', '.join(f'{factor:g}' for factor in FACTORS)} in this order, "
            f"without a gap."
        )
    return tuple(float(factor) for factor in factors)
