"""The Swin Transformer itself: patches, stages, and the norms of the maps that it gives out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex_backbones.backbones.base import Backbone, check_batch, first_channels
from detrex_backbones.backbones.recompute import run_recomputed
from detrex_backbones.backbones.staged import freeze_behind
from detrex_backbones.backbones.swin.block import NormLayer, SwinBlock
from detrex_backbones.backbones.transformer_parts import PatchEmbed, drop_path_rates, init_transformer, pair
from detrex_backbones.backbones.windows import Windows, shift_mask
from detrex_backbones.errors import ArgumentError
from detrex_backbones.layers.linear import Linear

__all__ = ["SwinTransformer"]


class SwinTransformer(Backbone):
    """Swin Transformer (Liu et al. 2021). Arguments, defaults, parameter names and values are detectron2's.

    An image of any size is padded to whole patches, and each map to whole windows before these are shifted; timm's
    Swin shifts first, which gives other values wherever the window doesn't divide the map. Maps: "p0" to "p3", of
    strides 4 to 32 for patches of 4 pixels, each behind a norm of its own, `norm0` to `norm3`.

    Args:
        pretrain_img_size: side in pixels of the images that `ape` was trained on, or height and width.
        patch_size: side of a patch in pixels, or height and width.
        in_chans: channels of the image.
        embed_dim: channels of the first stage; each further one has twice as many.
        depths: blocks of each stage.
        num_heads: attention heads of each stage.
        window_size: side of a window in tokens.
        mlp_ratio: hidden channels of the perceptrons, relative to the stage's.
        qkv_bias: whether query, key and value have a bias.
        qk_scale: factor of the logits; None for `1 / sqrt(channels of a head)`.
        drop_rate: dropout after the embedding, the attention and in the perceptrons.
        attn_drop_rate: dropout of the attention.
        drop_path_rate: stochastic depth of the last block; it grows from 0 block by block.
        norm_layer: makes a norm over the last axis from the number of channels.
        ape: adds a table of absolute positions, resized to the map.
        patch_norm: whether a norm follows the patches.
        out_indices: the stages whose maps `forward` returns, in its order.
        frozen_stages: what gets no gradient: from 0 on the patches, from 1 on also the table of positions, from 2 on
            also the first `frozen_stages - 1` stages; -1 for nothing.
        use_checkpoint: whether blocks are computed again in the backward pass instead of kept: less memory, more time.

    Raises:
        ArgumentError: depths and heads of different lengths, channels that the heads don't divide, an unknown stage.
    """

    def __init__(
        self,
        pretrain_img_size: int | Sequence[int] = 224,
        patch_size: int | Sequence[int] = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
        norm_layer: NormLayer = nn.LayerNorm,
        ape: bool = False,
        patch_norm: bool = True,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        _check(embed_dim, depths, num_heads, out_indices, frozen_stages)
        patch, pretrained = pair(patch_size), pair(pretrain_img_size)
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.patch_embed = _Patches(patch, in_chans, embed_dim, norm_layer if patch_norm else None)
        self.absolute_pos_embed: nn.Parameter | None = None
        if ape:
            grid = [pixels // side for pixels, side in zip(pretrained, patch, strict=True)]
            self.absolute_pos_embed = nn.Parameter(torch.zeros(1, embed_dim, *grid))
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        self.pos_drop = nn.Dropout(drop_rate)
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        self.layers = nn.ModuleList()
        for stage, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
            channels = embed_dim * 2**stage
            blocks = [
                SwinBlock(
                    *(channels, heads, window_size, mlp_ratio, qkv_bias, qk_scale),
                    *(drop_rate, attn_drop_rate, next(rates), norm_layer),
                )
                for _ in range(depth)
            ]
            merge = _PatchMerging(channels, norm_layer) if stage < len(depths) - 1 else None
            self.layers.append(_Stage(blocks, merge, window_size, use_checkpoint))
        for index in self.out_indices:
            self.add_module(f"norm{index}", norm_layer(embed_dim * 2**index))
        self._set_maps({f"p{index}": (embed_dim * 2**index, patch[0] * 2**index) for index in self.out_indices})
        freeze_behind(max(self.out_indices), self.layers)
        self._freeze()
        self.apply(init_transformer)

    def _freeze(self) -> None:
        frozen: list[nn.Module] = [self.patch_embed] if self.frozen_stages >= 0 else []
        frozen += self.layers[: max(self.frozen_stages - 1, 0)]
        for module in frozen:
            module.eval().requires_grad_(False)
        if self.frozen_stages >= 1 and self.absolute_pos_embed is not None:
            self.absolute_pos_embed.requires_grad = False
        if self.frozen_stages >= 2:
            self.pos_drop.eval()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, in_chans, H, W) -> {name: map (N, C, ceil(H / stride), ceil(W / stride))}."""
        check_batch(x, first_channels(self.patch_embed, None))
        x = self.patch_embed(x)
        if self.absolute_pos_embed is not None:
            table = F.interpolate(self.absolute_pos_embed, size=x.shape[1:3], mode="bicubic")
            x = x + table.permute(0, 2, 3, 1)
        x = self.pos_drop(x)
        maps = {}
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in self.out_indices:
                # Channels first in memory, too: what follows may view it.
                maps[index] = self.get_submodule(f"norm{index}")(x).permute(0, 3, 1, 2).contiguous()
            if layer.downsample is not None:
                x = layer.downsample(x)  # type: ignore[operator]
        return {f"p{index}": maps[index] for index in self.out_indices}


class _Patches(PatchEmbed):
    """Patches of an image that is padded to whole ones, and a norm."""

    def __init__(self, size: tuple[int, int], in_chans: int, embed_dim: int, norm_layer: NormLayer | None) -> None:
        super().__init__(size, size, in_chans=in_chans, embed_dim=embed_dim)
        self.patch_size = size
        self.norm = norm_layer(embed_dim) if norm_layer is not None else None

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.patch_size
        if x.shape[2] % height or x.shape[3] % width:
            x = F.pad(x, (0, -x.shape[3] % width, 0, -x.shape[2] % height))
        x = super().forward(x)
        return x if self.norm is None else self.norm(x)


class _Stage(nn.Module):
    """Blocks whose windows are shifted by turns. `downsample`, which makes the next stage's input, isn't run by it."""

    def __init__(
        self, blocks: Sequence[nn.Module], downsample: nn.Module | None, window_size: int, use_checkpoint: bool
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample
        self.window_size = window_size
        self.use_checkpoint = use_checkpoint

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> the same shape."""
        shift = self.window_size // 2
        turns = [
            (Windows(x, self.window_size), None),
            (Windows(x, self.window_size, shift), shift_mask(x, self.window_size, shift)),
        ]
        for index, block in enumerate(self.blocks):
            windows, mask = turns[index % 2]
            recomputed = self.use_checkpoint and torch.is_grad_enabled()
            x = run_recomputed(block, x, windows, mask) if recomputed else block(x, windows, mask)
        return x


class _PatchMerging(nn.Module):
    """Four neighbours become one token of twice the channels; an odd side is filled up with zeros."""

    def __init__(self, channels: int, norm_layer: NormLayer) -> None:
        super().__init__()
        self.reduction = Linear(4 * channels, 2 * channels, bias=False)
        self.norm = norm_layer(4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, ceil(H / 2), ceil(W / 2), 2 C)."""
        batch, height, width, channels = x.shape
        if height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        rows, columns = -(-height // 2), -(-width // 2)
        # Of the four, those of the left column come first.
        x = x.view(batch, rows, 2, columns, 2, channels).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.reduction(self.norm(x))  # type: ignore[no-any-return]


def _check(
    embed_dim: int, depths: Sequence[int], num_heads: Sequence[int], out_indices: Sequence[int], frozen_stages: int
) -> None:
    if len(depths) != len(num_heads):
        raise ArgumentError(
            f"depths={list(depths)} has {len(depths)} stages, num_heads={list(num_heads)} has {len(num_heads)}: one of "
            f"each for every stage."
        )
    for stage, heads in enumerate(num_heads):
        if embed_dim * 2**stage % heads:
            raise ArgumentError(
                f"num_heads={list(num_heads)}: stage {stage} has embed_dim * 2^{stage} = {embed_dim * 2**stage} "
                f"channels, which {heads} heads do not divide."
            )
    stages = range(len(depths))
    if not out_indices or len({*out_indices}) != len(out_indices) or not {*out_indices} <= {*stages}:
        raise ArgumentError(f"out_indices={out_indices!r}: at least one of {[*stages]}, none of them twice.")
    if frozen_stages not in range(-1, len(depths) + 2):
        raise ArgumentError(
            f"frozen_stages={frozen_stages!r} is out of range. Allowed: -1 (nothing), 0 (the patches), 1 (and absolute "
            f"positions), 2 (and the first stage), up to {len(depths) + 1} (all stages)."
        )
