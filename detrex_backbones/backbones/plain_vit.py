"""What plain vision transformers for detection share (ViTDet, Li et al. 2022): one map, windows, positions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from detrex_backbones.backbones.attention import attend_maps
from detrex_backbones.backbones.base import Backbone, check_batch, first_channels
from detrex_backbones.backbones.recompute import run_recomputed
from detrex_backbones.backbones.staged import add_scaled, layer_scale
from detrex_backbones.backbones.transformer_parts import (
    DropPath,
    PatchEmbed,
    init_transformer,
    relative_positions,
    resize_positions,
)
from detrex_backbones.backbones.windows import Windows, attend_in_windows
from detrex_backbones.errors import ArgumentError
from detrex_backbones.layers import Conv2d, LayerNorm2d
from detrex_backbones.layers.linear import Linear, apply_linear

__all__ = [
    "ConvPropagation",
    "PlainViT",
    "RelativeAttention",
    "ViTBlock",
    "check_heads",
    "window_sizes",
]


class PlainViT(Backbone):
    """Patches, a table of positions, and blocks that subclasses give as `blocks`; one map of the patches' stride.

    Args:
        patch_size: side of a patch in pixels.
        in_chans: channels of the image.
        embed_dim: channels of the tokens.
        use_abs_pos: whether there is a table of positions.
        pretrain_img_size: side in pixels of the images that the table was trained on.
        pretrain_use_cls_token: whether the table has an entry for a class token, which is left out.
        out_feature: name of the map.
        use_act_checkpoint: whether blocks are computed again in the backward pass instead of kept.
    """

    blocks: nn.ModuleList

    def __init__(
        self,
        *,
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        use_abs_pos: bool,
        pretrain_img_size: int,
        pretrain_use_cls_token: bool,
        out_feature: str,
        use_act_checkpoint: bool,
    ) -> None:
        super().__init__()
        self.pretrain_use_cls_token = pretrain_use_cls_token
        self.use_act_checkpoint = use_act_checkpoint
        self.patch_embed = PatchEmbed((patch_size,) * 2, (patch_size,) * 2, in_chans=in_chans, embed_dim=embed_dim)
        self.pos_embed: nn.Parameter | None = None
        if use_abs_pos:
            positions = (pretrain_img_size // patch_size) ** 2 + bool(pretrain_use_cls_token)
            self.pos_embed = nn.Parameter(torch.zeros(1, positions, embed_dim))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self._set_maps({out_feature: (embed_dim, patch_size)})

    def _set_blocks(self, blocks: Iterable[nn.Module]) -> None:
        self.blocks = nn.ModuleList(blocks)
        self.apply(init_transformer)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, in_chans, H, W) -> {out_feature: map (N, embed_dim, H // patch_size, W // patch_size)}."""
        check_batch(x, first_channels(self.patch_embed, None))
        x = self.patch_embed(x)
        if self.pos_embed is not None:
            x = x + resize_positions(self.pos_embed, self.pretrain_use_cls_token, x.shape[1], x.shape[2])
        windows = {size: Windows(x, size) for size in {int(block.window_size) for block in self.blocks}}  # type: ignore
        for block in self.blocks:
            recomputed = self.use_act_checkpoint and torch.is_grad_enabled()
            cutting = windows[int(block.window_size)]  # type: ignore[arg-type]
            x = run_recomputed(block, x, cutting) if recomputed else block(x, cutting)
        return {self._out_features[0]: x.permute(0, 3, 1, 2)}


class ViTBlock(nn.Module):
    """Attention, within windows or over the whole map, then a perceptron, each beside a shortcut.

    Args:
        dim: channels C of the tokens.
        attn: gives (N, H, W, C) for (N, H, W, C) and the windows of the map.
        mlp: gives (..., C) for (..., C).
        drop_path: what leaves either out in training.
        norm_layer: makes a norm over the last axis from the number of channels.
        window_size: side of a window in tokens; 0 for attention over the whole map.
        residual: what follows, for (N, C, H, W); None for nothing.
        has_gamma: whether the results of both have learnt factors, from 1.
    """

    def __init__(
        self,
        dim: int,
        attn: nn.Module,
        mlp: nn.Module,
        drop_path: DropPath,
        norm_layer: Callable[[int], nn.Module],
        window_size: int,
        residual: nn.Module | None,
        has_gamma: bool = False,
    ) -> None:
        super().__init__()
        self.gamma_1 = layer_scale(dim, 1.0 if has_gamma else None)
        self.gamma_2 = layer_scale(dim, 1.0 if has_gamma else None)
        self.norm1 = norm_layer(dim)
        self.attn = attn
        self.drop_path = drop_path
        self.norm2 = norm_layer(dim)
        self.mlp = mlp
        self.window_size = window_size
        self.residual = residual

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        """(N, H, W, C) -> the same shape; `windows` are those of the map, of this block's size."""
        x = add_scaled(x, self.attn(self.norm1(x), windows), self.gamma_1, self.drop_path)
        x = add_scaled(x, self.mlp(self.norm2(x)), self.gamma_2, self.drop_path)
        return x if self.residual is None else self.residual(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ConvPropagation(nn.Module):
    """A bottleneck of 1x1, 3x3 and 1x1 convolutions beside a shortcut: what carries values from window to window.

    It starts as the identity: its last norm's factors are zero.

    Args:
        dim: channels of the input and of the result; half of them within.
        act_layer: makes the activations.
    """

    def __init__(self, dim: int, act_layer: Callable[[], nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.conv1, self.norm1, self.act1 = Conv2d(dim, dim // 2, 1, bias=False), LayerNorm2d(dim // 2), act_layer()
        self.conv2 = Conv2d(dim // 2, dim // 2, 3, padding=1, bias=False)
        self.norm2, self.act2 = LayerNorm2d(dim // 2), act_layer()
        self.conv3, self.norm3 = Conv2d(dim // 2, dim, 1, bias=False), LayerNorm2d(dim)
        nn.init.zeros_(self.norm3.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim, H, W) -> the same shape."""
        residual = self.act1(self.norm1(self.conv1(x)))
        residual = self.act2(self.norm2(self.conv2(residual)))
        return x + self.norm3(self.conv3(residual))  # type: ignore[no-any-return]


class RelativeAttention(nn.Module):
    """Attention over a map, with tables of relative positions of its rows and columns.

    Args:
        dim: channels C of the tokens.
        num_heads: number of heads.
        bias: of "all", "none", or "query and value".
        side: side in tokens of the map that the tables are for; 0 for no tables.
        zero_init: whether the tables start from zero.
    """

    q_bias: nn.Parameter | None
    v_bias: nn.Parameter | None
    rel_pos_h: nn.Parameter | None
    rel_pos_w: nn.Parameter | None

    def __init__(self, dim: int, num_heads: int, bias: str, side: int, zero_init: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_bias, self.v_bias, self.rel_pos_h, self.rel_pos_w = (None for _ in range(4))
        if bias == "query and value":
            self.q_bias, self.v_bias = (nn.Parameter(torch.zeros(dim)) for _ in range(2))
        if side:
            shape = (2 * side - 1, dim // num_heads)
            self.rel_pos_h, self.rel_pos_w = (nn.Parameter(torch.zeros(shape)) for _ in range(2))
            for table in () if zero_init else (self.rel_pos_h, self.rel_pos_w):
                nn.init.trunc_normal_(table, std=0.02)
        self.qkv = Linear(dim, 3 * dim, bias=bias == "all")
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        """(N, H, W, dim) -> the same shape."""
        bias: Tensor | None = self.qkv.bias
        if self.q_bias is not None and self.v_bias is not None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        qkv = apply_linear(x, self.qkv.weight, bias)
        if windows.size:
            q, kv = torch.split(qkv, [x.shape[-1], 2 * x.shape[-1]], -1)
            k, v = windows.cut(kv, None if bias is None else bias[x.shape[-1] :]).chunk(2, -1)
            attended = attend_in_windows(q, k, v, windows.size, self._attention(windows.size, windows.size))
        else:
            attended = self._attention(x.shape[1], x.shape[2])(*qkv.chunk(3, -1))
        return self.proj(attended)  # type: ignore[no-any-return]

    def _attention(self, height: int, width: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """Of queries, keys and values of a map, or a window, of this size in tokens."""
        if self.rel_pos_h is None or self.rel_pos_w is None:
            return functools.partial(attend_maps, num_heads=self.num_heads)
        rows, columns = self._positions(self.rel_pos_h, height), self._positions(self.rel_pos_w, width)
        return functools.partial(attend_maps, num_heads=self.num_heads, rows=rows, columns=columns)

    def _positions(self, table: Tensor, side: int) -> Tensor:
        """The entry of a table for each query and key of `side` in a row, or a column."""
        return relative_positions(table, side, side)


def window_sizes(depth: int, window_size: int, window_block_indexes: Iterable[int]) -> list[int]:
    """The window of every block: 0 where attention is over the whole map."""
    return [window_size if index in set(window_block_indexes) else 0 for index in range(depth)]


def check_heads(embed_dim: int, num_heads: int, multiple: int = 1) -> None:
    """Refuse, by an ArgumentError, heads that don't divide the channels, each into a multiple of some number."""
    if num_heads < 1 or embed_dim % (num_heads * multiple):
        parts = f" into multiples of {multiple}" if multiple > 1 else ""
        raise ArgumentError(f"num_heads={num_heads!r} does not divide embed_dim={embed_dim}{parts}.")
