"""One block of a Swin Transformer: attention within windows, and a perceptron."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from detrex_backbones.backbones.attention import attend
from detrex_backbones.backbones.transformer_parts import DropPath, mlp
from detrex_backbones.backbones.windows import Windows
from detrex_backbones.layers.linear import Linear

__all__ = ["NormLayer", "SwinBlock"]

NormLayer = Callable[[int], nn.Module]


class SwinBlock(nn.Module):
    """Attention within windows and a perceptron, each behind a norm and on a residual branch.

    Args:
        channels: of the tokens.
        num_heads: attention heads.
        window_size: side of a window in tokens.
        mlp_ratio: hidden channels of the perceptron, relative to `channels`.
        qkv_bias: whether query, key and value have a bias.
        qk_scale: factor of the logits; None for `1 / sqrt(channels of a head)`.
        drop: dropout after the attention and in the perceptron.
        attn_drop: dropout of the attention.
        drop_path: rate of stochastic depth.
        norm_layer: makes a norm over the last axis.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        window_size: int,
        mlp_ratio: float,
        qkv_bias: bool,
        qk_scale: float | None,
        drop: float,
        attn_drop: float,
        drop_path: float,
        norm_layer: NormLayer,
    ) -> None:
        super().__init__()
        self.norm1 = norm_layer(channels)
        self.attn = _WindowAttention(channels, window_size, num_heads, qkv_bias, qk_scale, attn_drop, drop)
        self.drop_path = DropPath(drop_path)
        self.norm2 = norm_layer(channels)
        self.mlp = mlp(channels, int(channels * mlp_ratio), drop=drop)

    def forward(self, x: Tensor, windows: Windows, mask: Tensor | None) -> Tensor:
        """(N, H, W, channels) -> the same shape; `mask` is that of `shift_mask`, for shifted windows."""
        x = x + self.drop_path(self.attn(self.norm1(x), windows, mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class _WindowAttention(nn.Module):
    """Attention within each window, with a bias for each relative position."""

    def __init__(
        self,
        channels: int,
        window_size: int,
        num_heads: int,
        qkv_bias: bool,
        qk_scale: float | None,
        attn_drop: float,
        drop: float,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = qk_scale or (channels // num_heads) ** -0.5
        self.attn_drop = attn_drop
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", _relative_index(window_size))
        self.qkv = Linear(channels, channels * 3, bias=qkv_bias)
        self.proj = Linear(channels, channels)
        self.proj_drop = nn.Dropout(drop)

    def forward(self, x: Tensor, windows: Windows, mask: Tensor | None) -> Tensor:
        """(N, H, W, C) -> the same shape; `mask` is (windows of an image, size^2, size^2)."""
        qkv = windows.cut(self.qkv(x), self.qkv.bias).flatten(1, 2)
        groups, tokens = qkv.shape[:2]
        index: Tensor = self.relative_position_index  # type: ignore[assignment]
        bias = self.relative_position_bias_table[index.view(-1)].view(tokens, tokens, -1).permute(2, 0, 1)
        if mask is not None:
            bias = bias + mask[:, None]
        dropout = self.attn_drop if self.training else 0.0
        attended = attend(qkv.view(groups, tokens, 3, self.num_heads, -1), bias, self.scale, dropout)
        attended = windows.join(attended.view(groups, windows.size, windows.size, -1))
        return self.proj_drop(self.proj(attended))  # type: ignore[no-any-return]


def _relative_index(size: int) -> Tensor:
    """(size^2, size^2): which row of the table belongs to each pair of tokens of a window."""
    places = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")).flatten(1)
    down, right = places[:, :, None] - places[:, None, :] + size - 1
    index: Tensor = down * (2 * size - 1) + right
    return index
