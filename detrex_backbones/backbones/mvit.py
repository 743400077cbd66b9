"""The multiscale vision transformer, in its second version."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex_backbones.backbones.attention import attend_maps
from detrex_backbones.backbones.base import Backbone, check_batch, check_names, first_channels
from detrex_backbones.backbones.recompute import run_recomputed
from detrex_backbones.backbones.staged import freeze_behind
from detrex_backbones.backbones.transformer_parts import (
    DropPath,
    PatchEmbed,
    drop_path_rates,
    init_transformer,
    mlp,
    relative_positions,
    resize_positions,
    to_windows,
)
from detrex_backbones.backbones.windows import attend_in_windows
from detrex_backbones.errors import ArgumentError
from detrex_backbones.layers.linear import Linear

__all__ = ["MViT"]

Layer = Callable[[], nn.Module]
NormLayer = Callable[[int], nn.Module]


class MViT(Backbone):
    """Multiscale vision transformer (MViTv2, Li et al. 2022), with windows, for detection.

    Arguments, defaults, parameter names and values are detectron2's. Each stage but the first halves the map and
    doubles channels and heads. Attention stays within windows, but for the last blocks of the stages after the first.
    Maps: "scale2" to "scale5", of strides 4 to 32 for `patch_stride` (4, 4), each behind a norm of its own,
    `scale2_norm` and so on.

    Args:
        img_size: side in pixels of the images that the tables of relative positions are made for. At another size
            they are resized.
        patch_kernel: of the convolution that makes the tokens.
        patch_stride: of that convolution.
        patch_padding: of that convolution.
        in_chans: channels of the image.
        embed_dim: channels of the first stage.
        depth: number of blocks.
        num_heads: attention heads of the first stage.
        last_block_indexes: the last block of each stage.
        qkv_pool_kernel: of the depthwise convolutions that make queries, keys and values.
        adaptive_kv_stride: stride of keys and values in the first stage; each further one halves it.
        adaptive_window_size: side of a window in tokens in the first stage; each further one halves it.
        residual_pooling: whether the queries are added to what the attention gives.
        mlp_ratio: hidden channels of the perceptrons, relative to the stage's.
        qkv_bias: whether query, key and value have a bias.
        drop_path_rate: stochastic depth of the last block; it grows from 0 block by block.
        norm_layer: makes a norm over the last axis from the number of channels.
        act_layer: makes an activation. detectron2 takes it and doesn't use it.
        use_abs_pos: adds a table of absolute positions, which is resized to the map.
        use_rel_pos: adds decomposed relative positions to the attention.
        rel_pos_zero_init: whether their tables start from zero.
        use_act_checkpoint: whether blocks are computed again in the backward pass instead of kept: less memory, more
            time.
        pretrain_img_size: side in pixels of the images that the absolute positions were trained on.
        pretrain_use_cls_token: whether their table begins with one of a class token, which isn't used.
        out_features: the maps that `forward` returns, in its order.

    Raises:
        ArgumentError: channels that the heads don't divide, an unknown map, stages that aren't there.
    """

    def __init__(
        self,
        img_size: int = 224,
        patch_kernel: tuple[int, int] = (7, 7),
        patch_stride: tuple[int, int] = (4, 4),
        patch_padding: tuple[int, int] = (3, 3),
        in_chans: int = 3,
        embed_dim: int = 96,
        depth: int = 16,
        num_heads: int = 1,
        last_block_indexes: Sequence[int] = (0, 2, 11, 15),
        qkv_pool_kernel: tuple[int, int] = (3, 3),
        adaptive_kv_stride: int = 4,
        adaptive_window_size: int = 56,
        residual_pooling: bool = True,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        norm_layer: NormLayer = nn.LayerNorm,
        act_layer: Layer = nn.GELU,
        use_abs_pos: bool = False,
        use_rel_pos: bool = True,
        rel_pos_zero_init: bool = True,
        use_act_checkpoint: bool = False,
        pretrain_img_size: int = 224,
        pretrain_use_cls_token: bool = True,
        out_features: Sequence[str] = ("scale2", "scale3", "scale4", "scale5"),
    ) -> None:
        super().__init__()
        lasts = _check_stages(depth, last_block_indexes)
        names = check_names("out_features", out_features, [f"scale{stage + 2}" for stage in range(len(lasts))])
        if embed_dim % num_heads:
            raise ArgumentError(f"num_heads={num_heads} does not divide embed_dim={embed_dim}.")
        self.pretrain_use_cls_token = pretrain_use_cls_token
        self.use_act_checkpoint = use_act_checkpoint
        stride = patch_stride[0]
        self.patch_embed = PatchEmbed(patch_kernel, patch_stride, patch_padding, in_chans, embed_dim)
        self.pos_embed: nn.Parameter | None = None
        if use_abs_pos:
            positions = (pretrain_img_size // stride) * (pretrain_img_size // patch_stride[1])
            self.pos_embed = nn.Parameter(torch.zeros(1, positions + pretrain_use_cls_token, embed_dim))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = nn.ModuleList()
        self._last_blocks = {last: f"scale{stage + 2}" for stage, last in enumerate(lasts)}
        maps = {}
        channels, stage, window, side = embed_dim, 0, adaptive_window_size, img_size // stride
        for index, drop_path in enumerate(drop_path_rates(drop_path_rate, depth)):
            is_first = index - 1 in lasts
            kv_stride = max(adaptive_kv_stride >> stage, 1) * (2 if index in lasts[1:3] else 1)
            attention = _PooledAttention(
                *(channels, embed_dim * 2**stage, num_heads * 2**stage, qkv_bias, norm_layer, tuple(qkv_pool_kernel)),
                *(2 if is_first else 1, kv_stride, residual_pooling, 0 if index in lasts[1:] else window),
                *(side if use_rel_pos else None, rel_pos_zero_init),
            )
            self.blocks.append(_Block(channels, attention, mlp_ratio, drop_path, norm_layer, act_layer))
            channels = embed_dim * 2**stage
            if is_first:  # it is still counted in the tokens of the stage before
                window, side = window // 2, side // 2
            if index in lasts:
                name = self._last_blocks[index]
                if name in names:
                    maps[name] = channels, stride * 2**stage
                    self.add_module(f"{name}_norm", norm_layer(channels))
                stage += 1
        self._set_maps({name: maps[name] for name in names})
        freeze_behind(max(last for last, name in self._last_blocks.items() if name in maps), self.blocks)
        self.apply(init_transformer)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, in_chans, H, W) -> {name: map (N, C, ceil(H / stride), ceil(W / stride))}."""
        check_batch(x, first_channels(self.patch_embed, None))
        x = self.patch_embed(x)
        if self.pos_embed is not None:
            x = x + resize_positions(self.pos_embed, self.pretrain_use_cls_token, x.shape[1], x.shape[2])
        maps = {}
        for index, block in enumerate(self.blocks):
            recomputed = self.use_act_checkpoint and torch.is_grad_enabled()
            x = run_recomputed(block, x) if recomputed else block(x)
            name = self._last_blocks.get(index)
            if name in self._out_features:
                maps[name] = self.get_submodule(f"{name}_norm")(x).permute(0, 3, 1, 2)
        return {name: maps[name] for name in self._out_features}


class _Block(nn.Module):
    """Pooled attention and a perceptron; the first of a stage halves the map."""

    def __init__(
        self,
        channels: int,
        attention: _PooledAttention,
        mlp_ratio: float,
        drop_path: float,
        norm_layer: NormLayer,
        act_layer: Layer,
    ) -> None:
        super().__init__()
        out_channels, stride = attention.out_channels, attention.stride_q
        self.norm1 = norm_layer(channels)
        self.attn = attention
        self.drop_path = DropPath(drop_path)
        self.norm2 = norm_layer(out_channels)
        self.mlp = mlp(out_channels, int(out_channels * mlp_ratio), act_layer)
        self.proj = Linear(channels, out_channels) if channels != out_channels else None
        self.pool_skip = nn.MaxPool2d(stride + 1, stride, (stride + 1) // 2) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, ceil(H / stride), ceil(W / stride), C')."""
        normed = self.norm1(x)
        if self.proj is not None:
            x = self.proj(normed)
        if self.pool_skip is not None:
            x = self.pool_skip(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + self.drop_path(self.attn(normed))
        return x + self.drop_path(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class _PooledAttention(nn.Module):
    """Attention whose queries, keys and values are made by depthwise convolutions, the same for every head.

    Args:
        channels: of the input.
        out_channels: of the result.
        num_heads: attention heads.
        qkv_bias: whether query, key and value have a bias.
        norm_layer: makes a norm over the last axis.
        kernel: of the convolutions.
        stride_q: of the queries, and so of the result.
        stride_kv: of keys and values.
        residual_pooling: whether the queries are added to the result.
        window_size: side of a window in tokens of the input; 0 for none.
        side: side in tokens of the input that relative positions are made for; None for no positions.
        zero_init: whether their tables start from zero.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        num_heads: int,
        qkv_bias: bool,
        norm_layer: NormLayer,
        kernel: tuple[int, ...],
        stride_q: int,
        stride_kv: int,
        residual_pooling: bool,
        window_size: int,
        side: int | None,
        zero_init: bool,
    ) -> None:
        super().__init__()
        self.num_heads, self.out_channels, self.stride_q = num_heads, out_channels, stride_q
        self.residual_pooling = residual_pooling
        self.windows = (window_size // stride_q, window_size // stride_kv)
        self.qkv = Linear(channels, out_channels * 3, bias=qkv_bias)
        self.proj = Linear(out_channels, out_channels)
        self.width = width = out_channels // num_heads
        padding = tuple(length // 2 for length in kernel)
        for name, stride in (("q", stride_q), ("k", stride_kv), ("v", stride_kv)):
            pool = nn.Conv2d(width, width, kernel, stride, padding, groups=width, bias=False)  # type: ignore[arg-type]
            self.add_module(f"pool_{name}", pool)
            self.add_module(f"norm_{name}", norm_layer(width))
        self.rel_pos_h: nn.Parameter | None = None
        self.rel_pos_w: nn.Parameter | None = None
        if side is not None:
            length = 2 * max(side // stride_q, side // stride_kv) - 1
            self.rel_pos_h = nn.Parameter(torch.zeros(length, width))
            self.rel_pos_w = nn.Parameter(torch.zeros(length, width))
            if not zero_init:
                nn.init.trunc_normal_(self.rel_pos_h, std=0.02)
                nn.init.trunc_normal_(self.rel_pos_w, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, channels) -> (N, ceil(H / stride_q), ceil(W / stride_q), out_channels)."""
        q, k, v = (
            self._pool(part, name) for name, part in zip("qkv", self.qkv(x).chunk(3, -1), strict=True)
        )  # (N, H', W', out_channels)
        of_q, of_kv = self.windows
        if of_q:
            k, v = to_windows(k, of_kv), to_windows(v, of_kv)
            attended = attend_in_windows(q, k, v, of_q, self._attention((of_q, of_q), (of_kv, of_kv)))
        else:
            attended = self._attention(q.shape[1:3], k.shape[1:3])(q, k, v)
        return self.proj(attended + q if self.residual_pooling else attended)  # type: ignore[no-any-return]

    def _pool(self, x: Tensor, name: str) -> Tensor:
        pool, norm = self.get_submodule(f"pool_{name}"), self.get_submodule(f"norm_{name}")
        weight = pool.weight.repeat(self.num_heads, 1, 1, 1)  # type: ignore[operator]
        x = F.conv2d(x.permute(0, 3, 1, 2), weight, None, pool.stride, pool.padding, groups=len(weight))  # type: ignore
        x = x.permute(0, 2, 3, 1)
        return norm(x.reshape(*x.shape[:3], self.num_heads, -1)).flatten(-2)  # type: ignore[no-any-return]

    def _attention(self, of_q: Sequence[int], of_kv: Sequence[int]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """Of queries of a map, or a window, of one size in tokens, and of keys and values of another."""
        if self.rel_pos_h is None or self.rel_pos_w is None:
            return functools.partial(attend_maps, num_heads=self.num_heads)
        rows = relative_positions(self.rel_pos_h, of_q[0], of_kv[0])
        columns = relative_positions(self.rel_pos_w, of_q[1], of_kv[1])
        return functools.partial(attend_maps, num_heads=self.num_heads, rows=rows, columns=columns)


def _check_stages(depth: int, last_block_indexes: Sequence[int]) -> list[int]:
    lasts = list(last_block_indexes)
    if not lasts or lasts != sorted({*lasts}) or lasts[0] < 0 or lasts[-1] >= depth:
        raise ArgumentError(
            f"last_block_indexes={lasts} are not the last blocks of stages, one after the other, of depth={depth}: "
            f"from 0 to {depth - 1}, each larger than the one before."
        )
    return lasts
