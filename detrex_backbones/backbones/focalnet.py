"""FocalNet: sums of ever wider neighbourhoods take the place of attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex_backbones.backbones.base import check_batch, first_channels
from detrex_backbones.backbones.memory_format import fast_layout
from detrex_backbones.backbones.recompute import run_recomputed
from detrex_backbones.backbones.staged import (
    StagedBackbone,
    add_scaled,
    check_frozen,
    drop_paths,
    freeze_behind,
    freeze_parts,
    layer_scale,
)
from detrex_backbones.backbones.transformer_parts import DropPath, init_transformer, mlp
from detrex_backbones.errors import ArgumentError
from detrex_backbones.layers.linear import Linear, apply_linear

__all__ = ["FocalNet"]

FOCAL_FACTOR = 2  # how much wider each level's window is than the one before it


class FocalNet(StagedBackbone):
    """Focal modulation network (Yang et al. 2022). Arguments, parameter names and maps are detrex's.

    An image whose height or width isn't a multiple of the patch is padded with zeros at the bottom and at the right,
    and so is each map before it is halved; timm's network of this name, with other parameter names, cuts instead.

    Parameters: `patch_embed.proj.weight`, `layers.0.blocks.0.modulation.f.weight`, `layers.0.downsample.proj.weight`,
    `norm0.weight` and so on.

    Args:
        pretrain_img_size: taken for the sake of configs; nothing depends on it.
        patch_size: stride of the first map, one number or two; with `use_conv_embed` it stays 4 whatever stands here.
        in_chans: channels of the image.
        embed_dim: channels of the first stage; each has twice as many as the one before it.
        depths: number of blocks of each stage.
        mlp_ratio: channels within the blocks' MLPs over those around them.
        drop_rate: dropout after the patches, the modulation and in the MLPs.
        drop_path_rate: the last block's probability of being left out in training; it grows evenly from 0 at the first.
        norm_layer: takes a number of channels and returns the norm of the last axis.
        patch_norm: whether the patches, and each halved map, are normalised.
        out_indices: the stages that give maps: 0 is "p0" of stride 4, 3 is "p3" of stride 32.
        frozen_stages: what gets no gradient: from 0 on the patches, from 2 on the first `frozen_stages - 1` stages;
            -1 for nothing.
        focal_levels: number of windows of each stage.
        focal_windows: width of the smallest window of each stage, in entries of its map.
        use_conv_embed: whether patches overlap.
        use_postln: whether blocks normalise their results instead of what they are given.
        use_postln_in_modulation: whether the modulation has a norm of its own, too.
        use_layerscale: whether blocks' results have learnt factors, from 1e-4.
        normalize_modulator: whether the sum over the windows is divided by their number.
        use_checkpoint: whether the blocks' activations are computed again in the backward pass instead of kept.

    Raises:
        ArgumentError: stages that aren't there, lists of different lengths.
    """

    def __init__(
        self,
        pretrain_img_size: int = 1600,
        patch_size: int | Sequence[int] = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.3,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        patch_norm: bool = True,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        focal_levels: Sequence[int] = (3, 3, 3, 3),
        focal_windows: Sequence[int] = (3, 3, 3, 3),
        use_conv_embed: bool = False,
        use_postln: bool = False,
        use_postln_in_modulation: bool = False,
        use_layerscale: bool = False,
        normalize_modulator: bool = False,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if not len(depths) == len(focal_levels) == len(focal_windows):
            raise ArgumentError(
                f"depths={list(depths)!r}, focal_levels={list(focal_levels)!r} and focal_windows="
                f"{list(focal_windows)!r}: one number each for every stage."
            )
        check_frozen(frozen_stages, len(depths) + 1)
        patch = (patch_size, patch_size) if isinstance(patch_size, int) else tuple(patch_size)
        widths = [embed_dim * 2**index for index in range(len(depths))]
        self._set_stages(out_indices, widths, stride=4 if use_conv_embed else patch[0])
        self.use_checkpoint = use_checkpoint
        stem, halve = (STEM, HALVE) if use_conv_embed else (None, None)
        self.patch_embed = PatchEmbed(in_chans, embed_dim, patch, stem, norm_layer if patch_norm else None)
        self.pos_drop = nn.Dropout(drop_rate)
        block: dict[str, Any] = {"mlp_ratio": mlp_ratio, "drop": drop_rate, "norm_layer": norm_layer}
        block |= {"use_postln": use_postln, "use_layerscale": use_layerscale}
        block["modulation"] = {
            "use_postln_in_modulation": use_postln_in_modulation,
            "normalize_modulator": normalize_modulator,
        }
        self.layers = nn.ModuleList()
        for index, paths in enumerate(drop_paths(drop_path_rate, depths)):
            windows = [focal_windows[index] + FOCAL_FACTOR * level for level in range(focal_levels[index])]
            blocks = [FocalBlock(widths[index], windows, drop_path=path, **block) for path in paths]
            is_last = index + 1 == len(depths)
            merge = None if is_last else PatchEmbed(widths[index], 2 * widths[index], (2, 2), halve, norm_layer)
            self.layers.append(FocalStage(blocks, merge))
        for index in self.out_indices:
            self.add_module(f"norm{index}", norm_layer(widths[index]))
        self.apply(init_transformer)
        freeze_behind(max(self.out_indices), self.layers)
        if frozen_stages >= 0:
            freeze_parts([self.patch_embed, *self.layers[: max(frozen_stages - 1, 0)]])

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, C, H, W) -> {name: map (N, channels, ceil(H / stride), ceil(W / stride))}."""
        check_batch(x, first_channels(self.patch_embed, None))
        maps: dict[int, Tensor] = {}
        x = self.pos_drop(self.patch_embed(fast_layout(x, always=True)))
        for index, layer in enumerate(self.layers):
            x = layer(x, self.use_checkpoint and torch.is_grad_enabled())
            if index in self.out_indices:
                maps[index] = self.get_submodule(f"norm{index}")(x).permute(0, 3, 1, 2).contiguous()
            if layer.downsample is not None:
                x = layer.downsample(x.permute(0, 3, 1, 2))  # type: ignore[operator]
        return self._in_order(maps)


class FocalStage(nn.Module):
    """The blocks of a stage. `downsample`, which makes the next stage's input, isn't run by it."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor, is_recomputed: bool) -> Tensor:
        """(N, H, W, C) -> the same shape."""
        for block in self.blocks:
            x = run_recomputed(block, x) if is_recomputed else block(x)
        return x


# Kernel, stride and padding of patches that overlap: from the image, and from one stage to the next.
STEM = {"kernel_size": 7, "stride": 4, "padding": 2}
HALVE = {"kernel_size": 3, "stride": 2, "padding": 1}


class PatchEmbed(nn.Module):
    """Patches of a map, each made into a vector.

    Args:
        in_channels: of the map.
        out_channels: of the vectors.
        patch: height and width that the map is padded to multiples of.
        overlapping: kernel, stride and padding of the convolution; None for the patch itself.
        norm_layer: makes the norm of the vectors; None for none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        patch: tuple[int, ...],
        overlapping: dict[str, int] | None,
        norm_layer: Callable[[int], nn.Module] | None,
    ) -> None:
        super().__init__()
        self.patch = patch
        convolution: dict[str, Any] = overlapping or {"kernel_size": patch, "stride": patch}
        self.proj = nn.Conv2d(in_channels, out_channels, **convolution)
        self.norm = norm_layer(out_channels) if norm_layer is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, H', W', out_channels), of H' = ceil(H / patch)."""
        below, right = (-size % step for size, step in zip(x.shape[2:], self.patch, strict=True))
        if below or right:
            x = F.pad(x, (0, right, 0, below))
        x = self.proj(x).permute(0, 2, 3, 1)
        return x if self.norm is None else self.norm(x)


class FocalBlock(nn.Module):
    """Focal modulation, then an MLP, each beside a shortcut.

    Args:
        dim: channels of the input and of the result.
        windows: widths of the modulation's windows.
        drop_path: what leaves either out in training.
        modulation: further arguments of `FocalModulation`.
        mlp_ratio, drop, norm_layer, use_postln, use_layerscale: as of `FocalNet`.
    """

    def __init__(
        self,
        dim: int,
        windows: Sequence[int],
        *,
        drop_path: DropPath,
        modulation: dict[str, bool],
        mlp_ratio: float,
        drop: float,
        norm_layer: Callable[[int], nn.Module],
        use_postln: bool,
        use_layerscale: bool,
    ) -> None:
        super().__init__()
        self.use_postln = use_postln
        self.gamma_1 = layer_scale(dim, 1e-4 if use_layerscale else None)
        self.gamma_2 = layer_scale(dim, 1e-4 if use_layerscale else None)
        self.norm1 = norm_layer(dim)
        self.modulation = FocalModulation(dim, windows, drop=drop, **modulation)
        self.drop_path = drop_path
        self.norm2 = norm_layer(dim)
        self.mlp = mlp(dim, int(dim * mlp_ratio), drop=drop)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, dim) -> the same shape."""
        for part, norm, gamma in (
            (self.modulation, self.norm1, self.gamma_1),
            (self.mlp, self.norm2, self.gamma_2),
        ):
            residual = norm(part(x)) if self.use_postln else part(norm(x))
            x = add_scaled(x, residual, gamma, self.drop_path)
        return x


class FocalModulation(nn.Module):
    """Each entry's query times a gated sum of its neighbourhoods (Yang et al. 2022, section 3.2).

    Args:
        dim: channels of the input and of the result.
        windows: width of the depthwise convolution that makes each level of the one before it.
        drop: dropout of the result.
        use_postln_in_modulation, normalize_modulator: as of `FocalNet`.
    """

    def __init__(
        self,
        dim: int,
        windows: Sequence[int],
        *,
        drop: float,
        use_postln_in_modulation: bool,
        normalize_modulator: bool,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.normalize_modulator = normalize_modulator
        self.f = Linear(dim, 2 * dim + len(windows) + 1)  # a query, a context, and a gate for every level
        self.h = nn.Conv2d(dim, dim, 1)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(drop)
        self.focal_layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, dim, window, groups=dim, padding=window // 2, bias=False), nn.GELU())
            for window in windows
        )
        self.ln = nn.LayerNorm(dim) if use_postln_in_modulation else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, dim) -> the same shape."""
        # Three products rather than one that is cut in three: each result then lies in memory without gaps.
        sizes = [self.dim, self.dim, len(self.focal_layers) + 1]
        pieces = zip(torch.split(self.f.weight, sizes), torch.split(self.f.bias, sizes), strict=True)
        query, context, gates = (apply_linear(x, weight, bias) for weight, bias in pieces)
        levels = []
        for layer in self.focal_layers:
            context = layer(context.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            levels.append(context)
        levels.append(F.gelu(context.mean((1, 2), keepdim=True)))
        total = levels[0] * gates[..., :1]
        for index, level in enumerate(levels[1:], start=1):
            total = torch.addcmul(total, level, gates[..., index : index + 1])
        if self.normalize_modulator:
            total = total / len(levels)
        x = query * apply_linear(total, self.h.weight.flatten(1), self.h.bias)
        if self.ln is not None:
            x = self.ln(x)
        return self.proj_drop(self.proj(x))  # type: ignore[no-any-return]
