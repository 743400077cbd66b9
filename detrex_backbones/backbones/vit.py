"""The plain vision transformer that ViTDet runs on, and the decay of learning rates over its depth."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex_backbones.backbones.attention import attend_decomposed
from detrex_backbones.backbones.base import Backbone, check_batch
from detrex_backbones.backbones.recompute import run_recomputed
from detrex_backbones.backbones.transformer_parts import (
    DropPath,
    PatchEmbed,
    drop_path_rates,
    from_windows,
    init_transformer,
    mlp,
    relative_positions,
    resize_positions,
    to_windows,
)
from detrex_backbones.errors import ArgumentError
from detrex_backbones.layers import Conv2d, LayerNorm2d

__all__ = ["ViT", "get_vit_lr_decay_rate"]

Layer = Callable[[], nn.Module]
NormLayer = Callable[[int], nn.Module]


class ViT(Backbone):
    """Plain vision transformer with windows, for detection (ViTDet, Li et al. 2022).

    Arguments, defaults, parameter names and values are detectron2's. It takes images of any size and gives one map,
    whose sides are those of the image divided by `patch_size`, rounded down.

    Args:
        img_size: side in pixels of the images that the tables of relative positions are made for. At another size
            they are resized.
        patch_size: side of a patch in pixels.
        in_chans: channels of the image.
        embed_dim: channels of the tokens.
        depth: number of blocks.
        num_heads: attention heads of each block.
        mlp_ratio: hidden channels of the perceptrons, relative to `embed_dim`.
        qkv_bias: whether query, key and value have a bias.
        drop_path_rate: stochastic depth of the last block; it grows from 0 block by block.
        norm_layer: makes a norm over the last axis from the number of channels.
        act_layer: makes an activation.
        use_abs_pos: adds a table of absolute positions, which is resized to the map.
        use_rel_pos: adds decomposed relative positions to the attention.
        rel_pos_zero_init: whether their tables start from zero.
        window_size: side in tokens of the windows of the blocks that have some.
        window_block_indexes: the blocks whose attention stays within windows; the others' is global.
        residual_block_indexes: the blocks that are followed by a residual block of convolutions.
        use_act_checkpoint: whether blocks are computed again in the backward pass instead of kept: less memory, more
            time.
        pretrain_img_size: side in pixels of the images that the absolute positions were trained on.
        pretrain_use_cls_token: whether their table begins with one of a class token, which isn't used.
        out_feature: name of the map.

    Raises:
        ArgumentError: channels that the heads don't divide.
    """

    def __init__(
        self,
        img_size: int = 1024,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        norm_layer: NormLayer = nn.LayerNorm,
        act_layer: Layer = nn.GELU,
        use_abs_pos: bool = True,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        window_size: int = 0,
        window_block_indexes: Collection[int] = (),
        residual_block_indexes: Collection[int] = (),
        use_act_checkpoint: bool = False,
        pretrain_img_size: int = 224,
        pretrain_use_cls_token: bool = True,
        out_feature: str = "last_feat",
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ArgumentError(f"num_heads={num_heads} does not divide embed_dim={embed_dim}.")
        self.in_chans = in_chans
        self.pretrain_use_cls_token = pretrain_use_cls_token
        self.use_act_checkpoint = use_act_checkpoint
        self.patch_embed = PatchEmbed((patch_size,) * 2, (patch_size,) * 2, in_chans=in_chans, embed_dim=embed_dim)
        self.pos_embed: nn.Parameter | None = None
        if use_abs_pos:
            positions = (pretrain_img_size // patch_size) ** 2 + pretrain_use_cls_token
            self.pos_embed = nn.Parameter(torch.zeros(1, positions, embed_dim))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = nn.ModuleList()
        for index, drop_path in enumerate(drop_path_rates(drop_path_rate, depth)):
            window = window_size if index in window_block_indexes else 0
            side = (window or img_size // patch_size) if use_rel_pos else None
            attention = _Attention(embed_dim, num_heads, qkv_bias, side, rel_pos_zero_init)
            perceptron = mlp(embed_dim, int(embed_dim * mlp_ratio), act_layer)
            convolutions = _Convolutions(embed_dim, act_layer) if index in residual_block_indexes else None
            self.blocks.append(_Block(embed_dim, attention, perceptron, drop_path, norm_layer, window, convolutions))
        self._set_maps({out_feature: (embed_dim, patch_size)})
        self.apply(init_transformer)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, in_chans, H, W) -> {out_feature: map (N, embed_dim, H // patch_size, W // patch_size)}."""
        check_batch(x, self.in_chans)
        x = self.patch_embed(x)
        if self.pos_embed is not None:
            x = x + resize_positions(self.pos_embed, self.pretrain_use_cls_token, x.shape[1], x.shape[2])
        for block in self.blocks:
            recomputed = self.use_act_checkpoint and torch.is_grad_enabled()
            x = run_recomputed(block, x) if recomputed else block(x)
        return {self._out_features[0]: x.permute(0, 3, 1, 2)}


class _Block(nn.Module):
    """Attention, within windows or global, and a perceptron; convolutions may follow."""

    def __init__(
        self,
        channels: int,
        attention: nn.Module,
        perceptron: nn.Module,
        drop_path: float,
        norm_layer: NormLayer,
        window_size: int,
        convolutions: nn.Module | None,
    ) -> None:
        super().__init__()
        self.norm1 = norm_layer(channels)
        self.attn = attention
        self.drop_path = DropPath(drop_path)
        self.norm2 = norm_layer(channels)
        self.mlp = perceptron
        self.window_size = window_size
        self.residual = convolutions

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> the same shape."""
        attended = self.norm1(x)
        if self.window_size:
            attended = self.attn(to_windows(attended, self.window_size))
            attended = from_windows(attended, x.shape[1], x.shape[2])
        else:
            attended = self.attn(attended)
        x = x + self.drop_path(attended)
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        if self.residual is not None:
            x = self.residual(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x


class _Attention(nn.Module):
    """Attention over a map, with decomposed relative positions if there are any.

    Args:
        channels: of the tokens.
        num_heads: attention heads.
        qkv_bias: whether query, key and value have a bias.
        side: side in tokens of the map that relative positions are made for; None for no positions.
        zero_init: whether their tables start from zero.
    """

    def __init__(self, channels: int, num_heads: int, qkv_bias: bool, side: int | None, zero_init: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(channels, channels * 3, bias=qkv_bias)
        self.proj = nn.Linear(channels, channels)
        self.rel_pos_h: nn.Parameter | None = None
        self.rel_pos_w: nn.Parameter | None = None
        if side is not None:
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, channels // num_heads))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, channels // num_heads))
            if not zero_init:
                nn.init.trunc_normal_(self.rel_pos_h, std=0.02)
                nn.init.trunc_normal_(self.rel_pos_w, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> the same shape."""
        batch, height, width, _ = x.shape
        q, k, v = self.qkv(x).view(batch, height * width, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind()
        if self.rel_pos_h is None or self.rel_pos_w is None:
            attended = F.scaled_dot_product_attention(q, k, v)
        else:
            rows = relative_positions(self.rel_pos_h, height, height)
            columns = relative_positions(self.rel_pos_w, width, width)
            attended = attend_decomposed(q, k, v, rows, columns, q.shape[-1] ** -0.5)
        return self.proj(attended.transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]


class _Convolutions(nn.Module):
    """A bottleneck on a residual branch, without an activation at its end. Fresh, it changes nothing."""

    def __init__(self, channels: int, act_layer: Layer) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = Conv2d(channels, half, 1, bias=False)
        self.norm1 = LayerNorm2d(half)
        self.act1 = act_layer()
        self.conv2 = Conv2d(half, half, 3, padding=1, bias=False)
        self.norm2 = LayerNorm2d(half)
        self.act2 = act_layer()
        self.conv3 = Conv2d(half, channels, 1, bias=False)
        self.norm3 = LayerNorm2d(channels)
        nn.init.zeros_(self.norm3.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        branch = x
        for layer in self.children():
            branch = layer(branch)
        return x + branch


def get_vit_lr_decay_rate(name: str, lr_decay_rate: float = 1.0, num_layers: int = 12) -> float:
    """Factor of the learning rate of a parameter of a ViT: the deeper the block, the larger. As detectron2 has it.

    For `lr_factor_func` of an optimiser's parameter groups: `partial(get_vit_lr_decay_rate, num_layers=12,
    lr_decay_rate=0.7)`.

    Args:
        name: of the parameter, within a detector whose backbone is called "backbone".
        lr_decay_rate: factor from one block to the one below it.
        num_layers: blocks of the ViT.

    Returns:
        `lr_decay_rate ** (num_layers + 1 - layer)`: layer 0 is the patches and absolute positions, 1 the first block,
        and so on. Convolutions after a block and whatever is no part of the ViT: 1.0.
    """
    layer = num_layers + 1
    if name.startswith("backbone"):
        if ".pos_embed" in name or ".patch_embed" in name:
            layer = 0
        elif ".blocks." in name and ".residual." not in name:
            layer = int(name.partition(".blocks.")[2].partition(".")[0]) + 1
    return lr_decay_rate ** (num_layers + 1 - layer)
