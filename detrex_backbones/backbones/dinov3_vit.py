"""The ViT of DINOv3, and the smaller one of DEIMv2: queries and keys are turned by the angles of their positions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex_backbones.backbones.eva02 import SwiGLU
from detrex_backbones.backbones.recompute import run_recomputed
from detrex_backbones.backbones.transformer_parts import PatchEmbed, init_transformer, mlp
from detrex_backbones.backbones.windowed_vit import Scale
from detrex_backbones.layers.linear import Linear, apply_linear

__all__ = ["RotaryViT"]

PATCH, STORAGE_TOKENS = 16, 4
BASE = 100.0  # of the wave lengths of rotary positions
RESCALE = 2.0  # in training, DINOv3's positions are stretched by up to this factor, or shrunk by it


class RotaryViT(nn.Module):
    """A ViT with rotary positions: DINOv3's (Simeoni et al. 2025), or the smaller one that DEIMv2 distils from it.

    Args:
        dim: channels of the tokens.
        num_heads: attention heads of each block.
        depth: number of blocks.
        is_dinov3: whether blocks have learnt factors and keys no bias, and there are storage tokens and a last norm.
        gated: whether the perceptrons have a gate.
    """

    def __init__(self, dim: int, num_heads: int, depth: int, is_dinov3: bool, gated: bool) -> None:
        super().__init__()
        self.is_dinov3 = is_dinov3
        self.patch_embed = PatchEmbed(PATCH, PATCH, embed_dim=dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.storage_tokens = nn.Parameter(torch.zeros(1, STORAGE_TOKENS, dim)) if is_dinov3 else None
        for token in (self.cls_token, self.storage_tokens):
            if token is not None:
                nn.init.normal_(token, std=0.02)
        self.rope_embed = RotaryPositions(dim // num_heads, RESCALE if is_dinov3 else 1.0)
        norm = partial(nn.LayerNorm, eps=1e-5 if is_dinov3 else 1e-6)
        self.blocks = nn.ModuleList(RotaryBlock(dim, num_heads, is_dinov3, gated, norm) for _ in range(depth))
        self.norm = norm(dim) if is_dinov3 else nn.Identity()
        self.apply(init_transformer)

    def forward(self, x: Tensor, wanted: Sequence[int], recomputed: Sequence[str]) -> list[Tensor]:
        """Images (N, 3, H, W) -> a map (N, dim, H // 16, W // 16) of each of the blocks `wanted`."""
        x = self.patch_embed(x)
        batch, height, width, _ = x.shape
        first = [token for token in (self.cls_token, self.storage_tokens) if token is not None]
        x = torch.cat([*(token.expand(batch, -1, -1) for token in first), x.flatten(1, 2)], 1)
        before = x.shape[1] - height * width
        maps, turns = [], self.rope_embed(height, width, before)
        for index, block in enumerate(self.blocks):
            if index and self.rope_embed.changes:
                turns = self.rope_embed(height, width, before)
            again = str(index) in recomputed and torch.is_grad_enabled()
            x = run_recomputed(block, x, *turns) if again else block(x, *turns)
            if index in wanted:
                patches = self.norm(x[:, before:])
                maps.append(patches.transpose(1, 2).reshape(batch, -1, height, width))
        return maps


class RotaryBlock(nn.Module):
    """Attention and a perceptron, each beside a shortcut; arguments as of `RotaryViT`."""

    def __init__(
        self, dim: int, num_heads: int, is_dinov3: bool, gated: bool, norm: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(dim), norm(dim)
        self.attn = RotaryAttention(dim, num_heads, MaskedLinear if is_dinov3 else Linear)
        # Six times as wide as the tokens, a third less for the gate.
        self.mlp = SwiGLU(dim, 4 * dim, nn.Identity) if gated else mlp(dim, 4 * dim)
        self.ls1, self.ls2 = (Scale(dim) if is_dinov3 else nn.Identity() for _ in range(2))
        for gamma in [*self.ls1.parameters(), *self.ls2.parameters()]:
            nn.init.constant_(gamma, 1e-5)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(N, L, dim) -> the same shape."""
        x = x + self.ls1(self.attn(self.norm1(x), cos, sin))
        return x + self.ls2(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class RotaryAttention(nn.Module):
    """Attention whose queries and keys are turned by the angles of their positions."""

    def __init__(self, dim: int, num_heads: int, linear: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(N, L, dim) -> the same shape."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        x = F.scaled_dot_product_attention(_turned(q, cos, sin), _turned(k, cos, sin), v)
        return self.proj(x.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(N, heads, L, channels): channel i and the one half of the channels behind it are turned together."""
    one, other = x.chunk(2, -1)
    return (x * cos + torch.cat([-other, one], -1) * sin).to(x.dtype)


class MaskedLinear(nn.Linear):
    """A linear layer for query, key and value whose bias is masked: files keep a bias of the keys that isn't used."""

    bias_mask: Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.register_buffer("bias_mask", torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(out_features // 3))

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return apply_linear(input, self.weight, self.bias * self.bias_mask)


class RotaryPositions(nn.Module):
    """The angles of a map's positions, whose rows and columns go from -1 to 1 at any size.

    Args:
        channels: of a head; a quarter of them is turned by the row, and one by the column, each with one other.
        rescale: the largest factor by which all positions are stretched or shrunk in training, by chance.
    """

    periods: Tensor

    def __init__(self, channels: int, rescale: float) -> None:
        super().__init__()
        self.rescale = rescale
        self.register_buffer("periods", BASE ** (torch.arange(channels // 4) / (channels // 4)))

    @property
    def changes(self) -> bool:
        """Whether each call has a factor of its own."""
        return self.training and self.rescale != 1

    def forward(self, height: int, width: int, before: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines (before + height * width, channels); the tokens before those of the map aren't turned."""
        dtype = torch.promote_types(self.periods.dtype, torch.float32)
        rows, columns = (
            2 * (torch.arange(side, dtype=dtype, device=self.periods.device) + 0.5) / side - 1
            for side in (height, width)
        )
        places = torch.cartesian_prod(rows, columns)
        if self.changes:
            places = places * places.new_empty(1).uniform_(-1, 1).mul(math.log(self.rescale)).exp()
        angles = (2 * math.pi * places[..., None] / self.periods).flatten(1).tile(2)
        return F.pad(angles.cos(), (0, 0, before, 0), value=1.0), F.pad(angles.sin(), (0, 0, before, 0))
