"""The first version of PVT, whose attention looks at smaller maps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex_backbones.backbones.base import check_batch, first_channels
from detrex_backbones.backbones.plain_vit import check_heads
from detrex_backbones.backbones.recompute import run_recomputed
from detrex_backbones.backbones.staged import StagedBackbone, check_frozen, drop_paths, freeze_parts
from detrex_backbones.backbones.transformer_parts import DropPath, PatchEmbed, init_transformer, mlp
from detrex_backbones.errors import ArgumentError
from detrex_backbones.layers.linear import Linear

__all__ = ["PyramidVisionTransformer"]

PATCHES = (4, 2, 2, 2)  # how many pixels, or tokens of the stage before, are one token
Norm = partial(nn.LayerNorm, eps=1e-6)


class PyramidVisionTransformer(StagedBackbone):
    """PVT (Wang et al. 2021). Arguments are OpenMMLab's, parameter names the authors'; both's files fit.

    PVT v2 is `TimmBackbone("pvt_v2_b0")` and so on.

    Parameters: `patch_embed1.proj.weight`, `pos_embed1`, `block1.0.attn.q.weight`, `block1.0.attn.sr.weight`, ...

    Args:
        pretrain_img_size: side in pixels of the images that the tables of positions were trained on. They are resized
            to the map.
        in_channels: channels of the image.
        embed_dims: channels of a head, at each stage.
        num_layers: blocks of each stage. PVT-tiny 2, 2, 2, 2; small 3, 4, 6, 3; medium 3, 4, 18, 3; large 3, 8, 27, 3.
        num_heads: attention heads of each stage, which has `embed_dims` times as many channels.
        sr_ratios: how much smaller, in rows and in columns, the map is that each stage's attention looks at.
        out_indices: the stages that give maps: 0 is "p0" of stride 4, 3 is "p3" of stride 32.
        mlp_ratios: hidden channels of each stage's perceptrons, relative to its channels.
        qkv_bias: whether query, key and value have a bias.
        drop_path_rate: stochastic depth of the last block; it grows from 0 block by block.
        frozen_stages: how many stages get no gradient; -1 or 0 for none.
        use_checkpoint: whether blocks are computed again in the backward pass instead of kept.

    Raises:
        ArgumentError: stages that aren't there, numbers that aren't one a stage.
    """

    def __init__(
        self,
        pretrain_img_size: int = 224,
        in_channels: int = 3,
        embed_dims: int = 64,
        num_layers: Sequence[int] = (3, 4, 6, 3),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        sr_ratios: Sequence[int] = (8, 4, 2, 1),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        mlp_ratios: Sequence[float] = (8, 8, 4, 4),
        qkv_bias: bool = True,
        drop_path_rate: float = 0.1,
        *,
        frozen_stages: int = -1,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        lengths = {len(numbers) for numbers in (num_layers, num_heads, sr_ratios, mlp_ratios)}
        if lengths != {len(PATCHES)}:
            raise ArgumentError("num_layers, num_heads, sr_ratios and mlp_ratios: four numbers each, one a stage.")
        widths = [embed_dims * heads for heads in num_heads]
        self._set_stages(out_indices, widths)
        check_frozen(frozen_stages, len(widths))
        self.use_checkpoint = use_checkpoint
        self.num_stages = max(self.out_indices) + 1  # those behind the last map would never learn
        paths = drop_paths(drop_path_rate, num_layers)
        side, given = pretrain_img_size, in_channels
        for stage in range(self.num_stages):
            patch, dim = PATCHES[stage], widths[stage]
            side //= patch
            embed = PatchEmbed(patch, patch, in_chans=given, embed_dim=dim)
            embed.add_module("norm", Norm(dim))
            self.add_module(f"patch_embed{stage + 1}", embed)
            table = nn.Parameter(torch.zeros(1, side * side, dim))
            self.register_parameter(f"pos_embed{stage + 1}", table)
            nn.init.trunc_normal_(table, std=0.02)
            shape = (dim, num_heads[stage], sr_ratios[stage], int(dim * mlp_ratios[stage]), qkv_bias)
            self.add_module(f"block{stage + 1}", nn.ModuleList(PVTBlock(*shape, path) for path in paths[stage]))
            given = dim
        self.apply(init_transformer)
        for stage in range(1, max(frozen_stages, 0) + 1):
            if stage <= self.num_stages:
                freeze_parts([self.get_submodule(f"{name}{stage}") for name in ("patch_embed", "block")])
                self.get_parameter(f"pos_embed{stage}").requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, C, H, W), at least 32 pixels high and wide -> {name: map (N, C', H // stride, W // stride)}."""
        check_batch(x, first_channels(self.get_submodule("patch_embed1"), None))
        maps = {}
        for stage in range(self.num_stages):
            embed = self.get_submodule(f"patch_embed{stage + 1}")
            tokens: Tensor = embed.norm(embed(x))  # type: ignore[operator]
            tokens = tokens + _resized(self.get_parameter(f"pos_embed{stage + 1}"), *tokens.shape[1:3])
            for block in self.get_submodule(f"block{stage + 1}"):  # type: ignore[attr-defined]
                recomputed = self.use_checkpoint and torch.is_grad_enabled()
                tokens = run_recomputed(block, tokens) if recomputed else block(tokens)
            maps[stage] = x = tokens.permute(0, 3, 1, 2)
        return self._in_order(maps)


def _resized(table: Tensor, height: int, width: int) -> Tensor:
    """A table of a square (1, L, C) -> (1, height, width, C), bilinear."""
    side = int(table.shape[1] ** 0.5)
    square = table.view(1, side, side, -1).permute(0, 3, 1, 2)
    return F.interpolate(square, (height, width), mode="bilinear").permute(0, 2, 3, 1)


class PVTBlock(nn.Module):
    """Attention and a perceptron, each beside a shortcut.

    Args:
        dim: channels of the tokens.
        num_heads: attention heads.
        sr_ratio: as of the network.
        hidden: channels of the perceptron.
        qkv_bias: as of the network.
        drop_path: what leaves either out in training.
    """

    def __init__(
        self, dim: int, num_heads: int, sr_ratio: int, hidden: int, qkv_bias: bool, drop_path: DropPath
    ) -> None:
        super().__init__()
        self.norm1 = Norm(dim)
        self.attn = ReducedAttention(dim, num_heads, sr_ratio, qkv_bias)
        self.drop_path = drop_path
        self.norm2 = Norm(dim)
        self.mlp = mlp(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class ReducedAttention(nn.Module):
    """Attention of all tokens to a smaller map of them; arguments are those of `PVTBlock`."""

    def __init__(self, dim: int, num_heads: int, sr_ratio: int, qkv_bias: bool) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads, self.sr_ratio = num_heads, sr_ratio
        self.q = Linear(dim, dim, bias=qkv_bias)
        self.kv = Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)
        if sr_ratio > 1:
            self.sr = nn.Conv2d(dim, dim, sr_ratio, sr_ratio)
            self.norm = Norm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> the same shape."""
        batch, height, width, channels = x.shape
        small = x if self.sr_ratio == 1 else self.norm(self.sr(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        q = self.q(x).view(batch, height * width, self.num_heads, -1).transpose(1, 2)
        k, v = self.kv(small).view(batch, -1, 2, self.num_heads, channels // self.num_heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.proj(attended.reshape(batch, height, width, channels))  # type: ignore[no-any-return]
