"""EVA-02, a plain vision transformer with rotary positions and gated perceptrons, as detrex's detectors use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex_backbones.backbones.attention import attend_maps
from detrex_backbones.backbones.plain_vit import (
    ConvPropagation,
    PlainViT,
    ViTBlock,
    check_heads,
    window_sizes,
)
from detrex_backbones.backbones.staged import drop_paths
from detrex_backbones.backbones.windows import Windows, attend_in_windows
from detrex_backbones.layers.linear import Linear, apply_linear

__all__ = ["EVA02_ViT"]

BASE = 10000.0  # of the wave lengths of rotary positions
LAYER_NORM = partial(nn.LayerNorm, eps=1e-6)


class EVA02_ViT(PlainViT):  # noqa: N801 (detrex's name)
    """EVA-02's vision transformer (Fang et al. 2023). Arguments, parameter names and values are detrex's.

    A `SimpleFeaturePyramid` makes maps of several strides of its one. Where detrex's fails, on images that aren't
    squares of `img_size`, its rotary positions go on in the same steps.

    Parameters: `patch_embed.proj.weight`, `pos_embed`, `rope_win.freqs_cos`, `blocks.0.attn.q_proj.weight`,
    `blocks.0.mlp.w1.weight`, ...

    Args:
        img_size: side in pixels of the images that the rotary positions are for.
        patch_size: side of a patch in pixels.
        in_chans: channels of the image.
        embed_dim: channels of the tokens.
        depth: number of blocks.
        num_heads: attention heads of each block.
        mlp_ratio: hidden channels of the perceptrons, relative to the tokens'.
        qkv_bias: whether query and value have a bias.
        drop_path_rate: stochastic depth of the last block; it grows from 0 block by block.
        norm_layer: makes a norm over the last axis from the number of channels.
        act_layer: taken for the sake of configs; the perceptrons always have a SiLU.
        use_abs_pos: whether there is a table of positions, resized to the map.
        use_rel_pos: taken for the sake of configs; there are no relative positions.
        rope: likewise; positions are always rotary.
        pt_hw_seq_len: side in tokens of the images of the pretraining.
        intp_freq: whether windows, and the map, are stretched to that side for their rotary positions.
        window_size: side of a window in tokens.
        window_block_indexes: the blocks that attend within windows.
        residual_block_indexes: the blocks that are followed by convolutions.
        use_act_checkpoint: whether blocks are computed again in the backward pass instead of kept.
        pretrain_img_size: side in pixels of the images that the table of positions was trained on.
        pretrain_use_cls_token: whether that table has an entry for a class token, which is left out.
        out_feature: name of the map.
        xattn: taken for the sake of configs; attention is torch's own, whether xformers is there or not.

    Raises:
        ArgumentError: heads that don't divide the channels into multiples of four.
    """

    def __init__(
        self,
        img_size: int = 1024,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4 * 2 / 3,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = LAYER_NORM,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        use_abs_pos: bool = True,
        use_rel_pos: bool = False,
        rope: bool = True,
        pt_hw_seq_len: int = 16,
        intp_freq: bool = True,
        window_size: int = 0,
        window_block_indexes: Sequence[int] = (),
        residual_block_indexes: Sequence[int] = (),
        use_act_checkpoint: bool = False,
        pretrain_img_size: int = 224,
        pretrain_use_cls_token: bool = True,
        out_feature: str = "last_feat",
        xattn: bool = True,
    ) -> None:
        super().__init__(
            patch_size=patch_size,
            in_chans=in_chans,
            embed_dim=embed_dim,
            use_abs_pos=use_abs_pos,
            pretrain_img_size=pretrain_img_size,
            pretrain_use_cls_token=pretrain_use_cls_token,
            out_feature=out_feature,
            use_act_checkpoint=use_act_checkpoint,
        )
        check_heads(embed_dim, num_heads, multiple=4)
        sides = (window_size, img_size // patch_size) if intp_freq else (pt_hw_seq_len, pt_hw_seq_len)
        self.rope_win, self.rope_glb = (
            RotaryPositions(embed_dim // num_heads, side, pt_hw_seq_len / max(side, 1)) for side in sides
        )
        blocks = []
        windows = window_sizes(depth, window_size, window_block_indexes)
        for index, (window, drop_path) in enumerate(zip(windows, *drop_paths(drop_path_rate, [depth]), strict=True)):
            is_windowed = index in window_block_indexes
            attention = RotaryAttention(embed_dim, num_heads, qkv_bias, self.rope_win if is_windowed else self.rope_glb)
            perceptron = SwiGLU(embed_dim, int(embed_dim * mlp_ratio), norm_layer)
            residual = ConvPropagation(embed_dim) if index in residual_block_indexes else None
            blocks.append(ViTBlock(embed_dim, attention, perceptron, drop_path, norm_layer, window, residual))
        self._set_blocks(blocks)


class RotaryPositions(nn.Module):
    """Queries and keys, turned by angles that depend on the row and the column (RoPE, Su et al. 2021).

    Args:
        channels: of a head; one half is turned by the row, the other by the column.
        side: of the map that the tables are for, in tokens.
        step: of the position from one token to the next.
    """

    freqs_cos: Tensor
    freqs_sin: Tensor

    def __init__(self, channels: int, side: int, step: float) -> None:
        super().__init__()
        self.channels, self.side, self.step = channels, side, step
        angles = self._angles(side, side)
        self.register_buffer("freqs_cos", angles.cos().repeat_interleave(2, -1))
        self.register_buffer("freqs_sin", angles.sin().repeat_interleave(2, -1))

    def _angles(self, height: int, width: int, device: torch.device | None = None) -> Tensor:
        """(height * width, channels / 2), one for every two channels."""
        half = self.channels // 2
        frequency = BASE ** -(torch.arange(0, half, 2, device=device) / half)
        rows = torch.arange(height, device=device)[:, None] * self.step * frequency
        columns = torch.arange(width, device=device)[:, None] * self.step * frequency
        rows, columns = rows[:, None].expand(-1, width, -1), columns.expand(height, -1, -1)
        return torch.cat([rows, columns], -1).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, height, width, heads, channels) -> the same shape; two channels after each other are one number."""
        height, width = x.shape[1:3]
        if max(height, width) <= self.side:
            tables = (table.view(self.side, self.side, -1) for table in (self.freqs_cos, self.freqs_sin))
            cos, sin = (table[:height, :width, None, ::2].float() for table in tables)
        else:
            angles = self._angles(height, width, x.device).view(height, width, 1, -1)
            cos, sin = angles.cos(), angles.sin()
        pairs = x.float().view(*x.shape[:-1], -1, 2)
        if torch.compiler.is_compiling():  # complex numbers can't be compiled
            real, imaginary = pairs.unbind(-1)
            turned = torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], -1)
        else:
            turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.complex(cos, sin))
        return turned.flatten(-2).to(x.dtype)


class RotaryAttention(nn.Module):
    """Attention with rotary positions.

    Args:
        dim: channels of the tokens.
        num_heads: number of heads.
        qkv_bias: whether query and value have a bias; the key has none.
        rope: shared by the blocks.
    """

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool, rope: RotaryPositions) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.q_proj, self.k_proj, self.v_proj = (Linear(dim, dim, bias=False) for _ in range(3))
        self.rope = rope
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        """(N, H, W, dim) -> the same shape."""
        layers = ((self.q_proj, self.q_bias), (self.k_proj, None), (self.v_proj, self.v_bias))
        q, k, v = (apply_linear(x, layer.weight, bias) for layer, bias in layers)
        if windows.size:
            k, v = windows.cut(k), windows.cut(v, self.v_bias)
            return self.proj(attend_in_windows(q, k, v, windows.size, self._attend))  # type: ignore[no-any-return]
        return self.proj(self._attend(q, k, v))  # type: ignore[no-any-return]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = (self.rope(x.view(*x.shape[:3], self.num_heads, -1)).flatten(3) for x in (q, k))
        return attend_maps(q, k, v, self.num_heads)


class SwiGLU(nn.Module):
    """A perceptron with a gate, and a norm before its last layer (Shazeer 2020; Fang et al. 2023).

    Args:
        dim: channels of the input and of the result.
        hidden: channels within.
        norm_layer: makes the norm.
    """

    def __init__(self, dim: int, hidden: int, norm_layer: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.w1, self.w2 = Linear(dim, hidden), Linear(dim, hidden)
        self.ffn_ln = norm_layer(hidden)
        self.w3 = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> the same shape."""
        return self.w3(self.ffn_ln(F.silu(self.w1(x)) * self.w2(x)))  # type: ignore[no-any-return]
