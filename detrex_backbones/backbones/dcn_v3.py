"""DCNv3 (InternImage, Wang et al. 2023) on torch's own operators, and the norms around it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex_backbones.errors import ArgumentError
from detrex_backbones.layers.linear import Linear, apply_linear

__all__ = ["DCNv3", "Permuted", "last_axis_norm", "sample_and_sum"]

KERNEL = 3


class Permuted(nn.Module):
    """A view whose axes stand in another order: it counts as a layer in the authors' parameter names."""

    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


def last_axis_norm(kind: str, channels: int, *, channels_first: bool = False) -> nn.Sequential:
    """The norm, "LN" or "BN", in a sequence that gives the channels last: (N, H, W, C).

    Args:
        kind: "LN" (each entry for itself, eps 1e-6) or "BN".
        channels: C.
        channels_first: whether the input is (N, C, H, W) rather than (N, H, W, C).
    """
    to_last, to_first = Permuted(0, 2, 3, 1), Permuted(0, 3, 1, 2)
    if kind == "LN":
        return nn.Sequential(*([to_last] if channels_first else []), nn.LayerNorm(channels, eps=1e-6))
    return nn.Sequential(*([] if channels_first else [to_first]), nn.BatchNorm2d(channels), to_last)


class DCNv3(nn.Module):
    """Each entry of a map becomes a weighted sum of nine places around it; offsets and weights depend on the map.

    Every group of channels has places and weights of its own. Weights sum up to 1.

    Args:
        channels: of the input and of the result.
        group: number of groups.
        offset_scale: factor of the distance of every place.
        dw_kernel_size: width of the depthwise convolution that offsets and weights come from; None: 3.
        activation: makes the activation behind that convolution.
        norm_layer: "LN" or "BN": the norm between the two.
        center_feature_scale: whether a learnt part of each entry's own value stands in for the sum.

    Raises:
        ArgumentError: groups that don't divide the channels.
    """

    def __init__(
        self,
        channels: int,
        *,
        group: int,
        offset_scale: float,
        dw_kernel_size: int | None,
        activation: Callable[[], nn.Module],
        norm_layer: str,
        center_feature_scale: bool,
    ) -> None:
        super().__init__()
        if group < 1 or channels % group:
            raise ArgumentError(f"groups: {group!r} doesn't divide the {channels} channels of its stage.")
        self.group, self.offset_scale = group, offset_scale
        kernel = dw_kernel_size or KERNEL
        self.dw_conv = nn.Sequential(
            nn.Conv2d(channels, channels, kernel, padding=(kernel - 1) // 2, groups=channels),
            last_axis_norm(norm_layer, channels, channels_first=True),
            activation(),
        )
        self.offset = Linear(channels, group * KERNEL**2 * 2)
        self.mask = Linear(channels, group * KERNEL**2)
        self.input_proj = Linear(channels, channels)
        self.output_proj = Linear(channels, channels)
        self.center_feature_scale = center_feature_scale
        if center_feature_scale:
            self.center_feature_scale_proj_weight = nn.Parameter(torch.zeros(group, channels))
            self.center_feature_scale_proj_bias = nn.Parameter(torch.zeros(group))

    def reset_parameters(self) -> None:
        """Places without offsets, equal weights, and projections from Glorot and Bengio 2010."""
        for layer in (self.offset, self.mask):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.input_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, channels) -> the same shape."""
        values = self.input_proj(x)
        around = self.dw_conv(x.permute(0, 3, 1, 2))
        shape = (*x.shape[:3], self.group, KERNEL**2)
        offsets = self.offset(around).view(*shape, 2)
        weights = self.mask(around).view(shape).softmax(-1).to(values.dtype)
        result = sample_and_sum(values, offsets, weights, self.offset_scale)
        if self.center_feature_scale:
            share = apply_linear(around, self.center_feature_scale_proj_weight, self.center_feature_scale_proj_bias)
            share = share.sigmoid().repeat_interleave(x.shape[-1] // self.group, -1)
            result = torch.lerp(result, values, share)
        return self.output_proj(result)  # type: ignore[no-any-return]


def sample_and_sum(values: Tensor, offsets: Tensor, weights: Tensor, scale: float) -> Tensor:
    """The weighted sum of nine places of a map, bilinear between entries and zero beyond the border.

    Args:
        values: (N, H, W, C); C channels in G groups.
        offsets: (N, H, W, G, 9, 2): to the right and down, in entries of the map, of the places of a 3x3 window; these
            come column by column, as the authors have it.
        weights: (N, H, W, G, 9).
        scale: factor of the distance of each place, offset included.

    Returns:
        (N, H, W, C).
    """
    batch, height, width, channels = values.shape
    group, places = weights.shape[3:]
    size = torch.stack([values.new_full((), length) for length in (width, height)])  # open sizes stay open in exports
    window = scale * torch.arange(-(KERNEL // 2), KERNEL // 2 + 1, device=values.device)
    window = torch.stack(torch.meshgrid(window, window, indexing="ij"), -1).view(-1, 2)
    rows, columns = (torch.arange(length, device=values.device) for length in (height, width))
    entry = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)[:, :, None, None]
    # grid_sample counts from -1 to 1, from the outer edge of the first entry to that of the last.
    origin = ((2 * (entry + window) + 1) / size - 1).to(offsets.dtype)
    grid = torch.addcmul(origin, offsets, (2 * scale / size).to(offsets.dtype))
    # The places one after the other, each a map of its own: the sum then runs along memory.
    grid = grid.permute(0, 3, 4, 1, 2, 5).reshape(batch * group, places * height, width, 2)
    images = values.view(batch, height, width, group, -1).permute(0, 3, 4, 1, 2)
    images = images.reshape(batch * group, channels // group, height, width)
    sampled = F.grid_sample(images, grid.to(images.dtype), padding_mode="zeros", align_corners=False)
    sampled = sampled.view(batch * group, -1, places, height, width)
    factors = weights.permute(0, 3, 4, 1, 2).reshape(batch * group, 1, places, height, width)
    summed = (sampled * factors).sum(2)
    return summed.view(batch, channels, height, width).permute(0, 2, 3, 1)
