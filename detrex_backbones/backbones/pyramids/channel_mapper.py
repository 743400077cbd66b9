"""The neck of DINO and its relatives: the maps of a backbone, all of one number of channels."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from detrex_backbones.backbones.base import check_names
from detrex_backbones.errors import ArgumentError
from detrex_backbones.kinds import kinds_checked

__all__ = ["ChannelMapper"]


@kinds_checked
class ChannelMapper(nn.Module):
    """A convolution for each map of a backbone, and strided ones for more maps. Arguments and names are detrex's.

    Parameters: `convs.0.conv.weight`, `convs.0.norm.weight`, `extra_convs.0.conv.weight` and so on.

    Args:
        input_shapes: name of a map -> something with its `channels`, such as the backbone's `output_shape()`.
        in_features: which of the maps, the finest first.
        out_channels: channels of every map of the result.
        kernel_size: of the convolutions of the maps that are there; those of further ones are 3x3 of stride 2.
        stride: of the convolutions of the maps that are there.
        bias: whether convolutions have one.
        groups: of the convolutions.
        dilation: of the convolutions.
        norm_layer: the norm after a convolution, which each gets a copy of; None for none.
        activation: what comes last, of which each gets a copy; None for none.
        num_outs: how many maps there are in the end; None for as many as `input_shapes` has.

    Raises:
        ArgumentError: a map that isn't in `input_shapes`, fewer maps in the end than there are.
    """

    def __init__(
        self,
        input_shapes: Mapping[str, Any],
        in_features: Sequence[str],
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        bias: bool = True,
        groups: int = 1,
        dilation: int = 1,
        norm_layer: nn.Module | None = None,
        activation: nn.Module | None = None,
        num_outs: int | None = None,
    ) -> None:
        super().__init__()
        self.input_shapes = input_shapes
        self.in_features = check_names("in_features", in_features, input_shapes)
        self.out_channels = out_channels
        widths = [input_shapes[name].channels for name in self.in_features]
        more = (len(input_shapes) if num_outs is None else num_outs) - len(widths)
        if more < 0 and num_outs is not None:
            raise ArgumentError(f"num_outs={num_outs}, but in_features={self.in_features!r} are {len(widths)} already.")

        def layers(in_channels: int, kernel_size: int, stride: int, padding: int) -> nn.Sequential:
            conv = nn.Conv2d(
                *(in_channels, out_channels, kernel_size, stride, padding), dilation=dilation, groups=groups, bias=bias
            )
            parts = {"conv": conv, "norm": copy.deepcopy(norm_layer), "activation": copy.deepcopy(activation)}
            return nn.Sequential(OrderedDict((name, part) for name, part in parts.items() if part is not None))

        self.convs = nn.ModuleList(layers(width, kernel_size, stride, (kernel_size - 1) // 2) for width in widths)
        self.extra_convs: nn.ModuleList | None = None
        if more > 0:
            chain = [widths[-1], *[out_channels] * more]
            self.extra_convs = nn.ModuleList(layers(width, 3, 2, 1) for width, _ in pairwise(chain))

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """{name: map (N, C, H, W)} -> `num_outs` maps (N, out_channels, H', W'), the finest first."""
        outputs = [conv(inputs[name]) for name, conv in zip(self.in_features, self.convs, strict=True)]
        below = inputs[self.in_features[-1]]
        for conv in self.extra_convs or ():
            below = conv(below)
            outputs.append(below)
        return tuple(outputs)
