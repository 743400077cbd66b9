"""ConvNeXt with a norm for every map, as detrex's detectors take it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex_backbones.backbones.base import check_batch, first_channels
from detrex_backbones.backbones.memory_format import fast_layout
from detrex_backbones.backbones.recompute import check_stages, run_recomputed
from detrex_backbones.backbones.staged import (
    StagedBackbone,
    add_scaled,
    check_frozen,
    drop_paths,
    freeze_behind,
    freeze_parts,
    layer_scale,
)
from detrex_backbones.backbones.transformer_parts import DropPath, init_transformer
from detrex_backbones.errors import ArgumentError
from detrex_backbones.layers import LayerNorm2d
from detrex_backbones.layers.linear import Linear

__all__ = ["ConvNeXt"]


class ConvNeXt(StagedBackbone):
    """ConvNeXt (Liu et al. 2022), each map with a LayerNorm of its own. Arguments and parameter names are detrex's.

    timm's network of this name has no norms for its maps, and other parameter names. Maps may lie in memory with
    channels last, see `fast_layout`.

    Parameters: `downsample_layers.0.0.weight`, `stages.0.0.dwconv.weight`, `stages.0.0.gamma`, `norm0.weight`, ...

    Args:
        in_chans: channels of the image.
        depths: number of blocks of each stage.
        dims: channels of each stage.
        drop_path_rate: the last block's probability of being left out in training; it grows evenly from 0 at the first.
        layer_scale_init_value: what the factors of each block's result start from; 0 for no factors.
        out_indices: the stages that give maps: 0 is "p0" of stride 4, 3 is "p3" of stride 32.
        frozen_stages: how many stages, with what comes before them, get no gradient; -1 or 0 for none.
        checkpoint_stages: the stages that are computed again in the backward pass instead of kept: True for all, or
            names of maps: ["p0", "p1"].

    Raises:
        ArgumentError: stages that aren't there, or as many depths as there aren't dims.
    """

    def __init__(
        self,
        in_chans: int = 3,
        depths: Sequence[int] = (3, 3, 9, 3),
        dims: Sequence[int] = (96, 192, 384, 768),
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        *,
        checkpoint_stages: bool | Sequence[str] = False,
    ) -> None:
        super().__init__()
        if len(depths) != len(dims):
            raise ArgumentError(f"depths={list(depths)!r} and dims={list(dims)!r}: one number each for every stage.")
        check_frozen(frozen_stages, len(dims))
        self._set_stages(out_indices, dims)
        self.checkpoint_stages = check_stages(checkpoint_stages, [f"p{index}" for index in range(len(dims))])
        stem = nn.Sequential(nn.Conv2d(in_chans, dims[0], 4, stride=4), LayerNorm2d(dims[0]))
        self.downsample_layers = nn.ModuleList([stem])
        for narrow, wide in pairwise(dims):
            self.downsample_layers.append(nn.Sequential(LayerNorm2d(narrow), nn.Conv2d(narrow, wide, 2, stride=2)))
        self.stages = nn.ModuleList(
            nn.Sequential(*[ConvNeXtBlock(dim, drop_path, layer_scale_init_value) for drop_path in paths])
            for dim, paths in zip(dims, drop_paths(drop_path_rate, depths), strict=True)
        )
        for index in self.out_indices:
            self.add_module(f"norm{index}", LayerNorm2d(dims[index]))
        self.apply(init_transformer)
        for parts in (self.downsample_layers, self.stages):
            freeze_behind(max(self.out_indices), parts)
        frozen = max(frozen_stages, 0)
        freeze_parts([*self.downsample_layers[:frozen], *self.stages[:frozen]])

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, C, H, W), at least 32 pixels high and wide -> {name: map (N, dim, H // stride, W // stride)}."""
        check_batch(x, first_channels(self.downsample_layers, None))
        maps: dict[int, Tensor] = {}
        # All that is dense here works on the channels of a pixel; the convolutions' weights are small.
        x = fast_layout(x, always=True)
        for index, (downsample, stage) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            x = downsample(x)
            recomputed = f"p{index}" in self.checkpoint_stages and torch.is_grad_enabled()
            x = run_recomputed(stage, x) if recomputed else stage(x)
            if index in self.out_indices:
                maps[index] = self.get_submodule(f"norm{index}")(x)
        return self._in_order(maps)


class ConvNeXtBlock(nn.Module):
    """`x + gamma * mlp(norm(dwconv(x)))`: a depthwise 7x7 convolution, then the channels of each pixel alone.

    Args:
        dim: channels of the input and of the result.
        drop_path: what leaves the block out in training.
        layer_scale_init_value: what gamma starts from; 0 for none.
    """

    def __init__(self, dim: int, drop_path: DropPath, layer_scale_init_value: float) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = Linear(dim, 4 * dim)
        self.pwconv2 = Linear(4 * dim, dim)
        self.gamma = layer_scale(dim, layer_scale_init_value if layer_scale_init_value > 0 else None)
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim, H, W) -> the same shape."""
        residual = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        residual = self.pwconv2(F.gelu(self.pwconv1(residual)))
        return add_scaled(x.permute(0, 2, 3, 1), residual, self.gamma, self.drop_path).permute(0, 3, 1, 2)
