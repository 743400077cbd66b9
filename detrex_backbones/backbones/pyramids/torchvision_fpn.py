"""A feature pyramid over the maps of a backbone, with torchvision's parameter names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from detrex_backbones.backbones.base import Backbone, check_names
from detrex_backbones.backbones.pyramids.top_blocks import check_top_block, takes_network_map
from detrex_backbones.errors import ArgumentError
from detrex_backbones.layers.norm import Norm, norm_layer

__all__ = ["TorchvisionFPN"]


class TorchvisionFPN(Backbone):
    """Maps of several strides made one after the other from the coarsest down (Lin et al. 2017).

    For torchvision's detectors: the pyramid itself is torchvision's `FeaturePyramidNetwork`, which is what their
    weights are named after. `FPN` is the one with detectron2's names; the arguments are its. The first map is called
    after its stride, "p2" for 4, and the others count on from there, also over a DC5 network, whose last two strides
    are equal.

    Parameters: `bottom_up.*`, `fpn.inner_blocks.0.0.weight`, `fpn.layer_blocks.0.0.weight`, `top_block.*`.

    Args:
        bottom_up: the network underneath.
        in_features: which of its maps, the finest first; None for all.
        out_channels: channels of every map.
        norm: the norm after each convolution, see `get_norm`; "" or None for none, and a bias instead.
        top_block: makes further levels of a map: `LastLevelMaxPool()`, `LastLevelP6P7(...)`, or another module with
            `num_levels` and `in_feature` that returns a list. None for none. Where the network and the pyramid have a
            map of that name ("p5" of a timm model), one with `in_channels` gets the network's.
        input_format: "RGB" or "BGR": what `bottom_up` wants. Images come in RGB, as torchvision's detectors give them,
            and are turned round for "BGR".

    Raises:
        ArgumentError: a map that `bottom_up` doesn't have or whose channels it doesn't say, a top_block that doesn't
            fit, an unknown format.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str] | None = None,
        out_channels: int = 256,
        norm: Norm = "",
        top_block: nn.Module | None = None,
        input_format: str = "RGB",
    ) -> None:
        super().__init__()
        shapes = bottom_up.output_shape()
        self.in_features = check_names("in_features", list(shapes) if in_features is None else in_features, shapes)
        if input_format not in ("RGB", "BGR"):
            raise ArgumentError(f"input_format={input_format!r} is not known. Allowed: 'RGB', 'BGR'.")
        channels = [shapes[name].channels or 0 for name in self.in_features]
        strides = [shapes[name].stride or 0 for name in self.in_features]
        if 0 in channels or 0 in strides or sorted(strides) != strides:
            raise ArgumentError(
                f"an FPN takes maps from fine to coarse, but those of in_features={self.in_features!r} have the "
                f"strides {strides} and the channels {channels} (0 is unknown)."
            )
        self.bottom_up = bottom_up
        self.top_block = top_block
        self.out_channels = out_channels
        self.input_format = input_format
        self.fpn = FeaturePyramidNetwork(channels, out_channels, norm_layer=norm_layer(norm))
        first = strides[0].bit_length() - 1
        self._levels = [f"p{first + index}" for index in range(len(strides))]
        if top_block is not None:
            check_top_block(top_block, [*shapes, *self._levels])
            self._top_of_network = takes_network_map(top_block, shapes, self._levels)
            for index in range(int(top_block.num_levels)):  # type: ignore[arg-type]
                strides.append(2 * strides[-1])
                self._levels.append(f"p{first + len(self.in_features) + index}")
        self._set_maps({name: (out_channels, stride) for name, stride in zip(self._levels, strides, strict=True)})

    @property
    def size_divisibility(self) -> int:
        """What `bottom_up` asks for: the pyramid itself takes any size."""
        return self.bottom_up.size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Those of `bottom_up`."""
        return self.bottom_up.padding_constraints

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W), RGB -> {name: map (N, out_channels, H / stride, W / stride)}, the finest first."""
        below = self.bottom_up(x.flip(1) if self.input_format == "BGR" else x)
        pyramid = self.fpn(OrderedDict((name, below[name]) for name in self.in_features))
        maps = dict(zip(self._levels, pyramid.values(), strict=False))
        if self.top_block is not None:
            source: str = self.top_block.in_feature  # type: ignore[assignment]
            top = self.top_block(below[source] if self._top_of_network else maps[source])
            maps |= zip(self._levels[len(maps) :], top, strict=True)
        return maps
