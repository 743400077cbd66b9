"""What plain vision transformers for detection share (ViTDet, Li et al. 2022): one map, windows, positions."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex_backbones.backbones.base import Backbone, check_batch
from detrex_backbones.backbones.recompute import run_recomputed
from detrex_backbones.backbones.staged import add_scaled, layer_scale
from detrex_backbones.backbones.transformer_parts import (
    DropPath,
    PatchEmbed,
    from_windows,
    init_transformer,
    resize_positions,
    to_windows,
)
from detrex_backbones.errors import ArgumentError
from detrex_backbones.layers import Conv2d, LayerNorm2d

__all__ = [
    "ConvPropagation",
    "PlainViT",
    "ViTBlock",
    "check_heads",
    "linear_in_windows",
    "out_of_windows",
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
        self.in_chans = in_chans
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
        check_batch(x, self.in_chans)
        x = self.patch_embed(x)
        if self.pos_embed is not None:
            x = x + resize_positions(self.pos_embed, self.pretrain_use_cls_token, x.shape[1], x.shape[2])
        x = x.contiguous()
        for block in self.blocks:
            recomputed = self.use_act_checkpoint and torch.is_grad_enabled()
            x = run_recomputed(block, x) if recomputed else block(x)
        return {self._out_features[0]: x.permute(0, 3, 1, 2)}


class ViTBlock(nn.Module):
    """Attention, within windows or over the whole map, then a perceptron, each beside a shortcut.

    Args:
        dim: channels C of the tokens.
        attn: gives (N, H, W, C) for (N, H, W, C) and the side of a window.
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

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> the same shape."""
        x = add_scaled(x, self.attn(self.norm1(x), self.window_size), self.gamma_1, self.drop_path)
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


def linear_in_windows(x: Tensor, weight: Tensor, bias: Tensor | None, size: int) -> Tensor:
    """`linear(to_windows(x, size), weight, bias)` without the work for what fills the last windows up.

    Args:
        x: (N, H, W, C).
        weight: (D, C).
        bias: (D,), which is what the filling gets; None for zeros.
        size: side of a window in tokens; 0 for none, where the result is (N, H, W, D).

    Returns:
        (N * windows, size, size, D).
    """
    if not size:
        return F.linear(x, weight, bias)
    if bias is None or not (x.shape[1] % size or x.shape[2] % size):
        return to_windows(F.linear(x, weight, bias), size)
    return to_windows(F.linear(x, weight), size) + bias


def out_of_windows(attended: Tensor, size: int, height: int, width: int) -> Tensor:
    """The result of attention, (N, heads, tokens, channels), as a map (N, height, width, heads * channels).

    Args:
        attended: N counts the windows of all images, or, where `size` is 0, the images.
        size: side of a window in tokens; 0 for none.
        height: of the map.
        width: of the map.
    """
    attended = attended.transpose(1, 2).flatten(2)
    if not size:
        return attended.reshape(len(attended), height, width, -1)
    return from_windows(attended.reshape(len(attended), size, size, -1), height, width)


def window_sizes(depth: int, window_size: int, window_block_indexes: Iterable[int]) -> list[int]:
    """The window of every block: 0 where attention is over the whole map."""
    return [window_size if index in set(window_block_indexes) else 0 for index in range(depth)]


def check_heads(embed_dim: int, num_heads: int, multiple: int = 1) -> None:
    """Refuse, by an ArgumentError, heads that don't divide the channels, each into a multiple of some number."""
    if num_heads < 1 or embed_dim % (num_heads * multiple):
        parts = f" into multiples of {multiple}" if multiple > 1 else ""
        raise ArgumentError(f"num_heads={num_heads!r} doesn't divide embed_dim={embed_dim}{parts}.")
