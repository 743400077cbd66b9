"""EVA, a plain vision transformer, as detrex's detectors use it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from detrex_backbones.backbones.plain_vit import (
    ConvPropagation,
    PlainViT,
    RelativeAttention,
    ViTBlock,
    check_heads,
    window_sizes,
)
from detrex_backbones.backbones.staged import drop_paths
from detrex_backbones.backbones.transformer_parts import mlp
from detrex_backbones.errors import ArgumentError

__all__ = ["EVAViT"]

GROWTH = 1.0903078  # of the distances in BEiT's resizing, from one to the next


class EVAViT(PlainViT):
    """EVA's vision transformer (Fang et al. 2022). Arguments, parameter names and values are detrex's.

    A `SimpleFeaturePyramid` makes maps of several strides of its one. detrex's default norm converts to float32 and
    back, which torch's own does within.

    Parameters: `patch_embed.proj.weight`, `pos_embed`, `blocks.0.attn.q_bias`, `blocks.0.attn.qkv.weight`, ...

    Args:
        img_size: side in pixels of the images that the tables of relative positions are for.
        patch_size: side of a patch in pixels.
        in_chans: channels of the image.
        embed_dim: channels of the tokens.
        depth: number of blocks.
        num_heads: attention heads of each block.
        mlp_ratio: hidden channels of the perceptrons, relative to the tokens'.
        qkv_bias: whether query, key and value have a bias; not with `beit_like_qkv_bias`.
        drop_path_rate: stochastic depth of the last block; it grows from 0 block by block.
        norm_layer: makes a norm over the last axis from the number of channels.
        act_layer: makes the activations.
        use_abs_pos: whether there is a table of positions, resized to the map.
        use_rel_pos: whether there are tables of relative positions.
        rel_pos_zero_init: whether these start from zero.
        window_size: side of a window in tokens.
        window_block_indexes: the blocks that attend within windows.
        residual_block_indexes: the blocks that are followed by convolutions.
        use_act_checkpoint: whether blocks are computed again in the backward pass instead of kept.
        pretrain_img_size: side in pixels of the images that the table of positions was trained on.
        pretrain_use_cls_token: whether that table has an entry for a class token, which is left out.
        out_feature: name of the map.
        beit_like_qkv_bias: whether query and value alone have a bias.
        beit_like_gamma: whether the results of attention and perceptron have learnt factors.
        freeze_patch_embed: whether the patches get no gradient.
        interp_type: how tables of relative positions are resized where the map isn't of their size: "vitdet"
            (linearly), or "beit" (a cubic spline over distances that grow; for evaluation at higher resolutions).

    Raises:
        ArgumentError: heads that don't divide the channels, an unknown `interp_type`.
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
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        use_abs_pos: bool = True,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        window_size: int = 0,
        window_block_indexes: Sequence[int] = (),
        residual_block_indexes: Sequence[int] = (),
        use_act_checkpoint: bool = False,
        pretrain_img_size: int = 224,
        pretrain_use_cls_token: bool = True,
        out_feature: str = "last_feat",
        beit_like_qkv_bias: bool = True,
        beit_like_gamma: bool = False,
        freeze_patch_embed: bool = False,
        interp_type: str = "vitdet",
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
        check_heads(embed_dim, num_heads)
        if interp_type not in ("vitdet", "beit"):
            raise ArgumentError(f"interp_type={interp_type!r} is not known. Allowed: 'vitdet', 'beit'.")
        bias = "query and value" if beit_like_qkv_bias else "all" if qkv_bias else "none"
        blocks = []
        windows = window_sizes(depth, window_size, window_block_indexes)
        for index, (window, drop_path) in enumerate(zip(windows, *drop_paths(drop_path_rate, [depth]), strict=True)):
            side = (window or img_size // patch_size) if use_rel_pos else 0
            attention = EVAAttention(embed_dim, num_heads, bias, side, rel_pos_zero_init, interp_type)
            perceptron = mlp(embed_dim, int(embed_dim * mlp_ratio), act_layer)
            residual = ConvPropagation(embed_dim, act_layer) if index in residual_block_indexes else None
            parts = (attention, perceptron, drop_path, norm_layer, window, residual, beit_like_gamma)
            blocks.append(ViTBlock(embed_dim, *parts))
        self._set_blocks(blocks)
        if freeze_patch_embed:
            self.patch_embed.requires_grad_(False)


class EVAAttention(RelativeAttention):
    """With tables that may be resized as BEiT does it; `interp_type` is that of `EVAViT`, the rest of its base."""

    def __init__(self, dim: int, num_heads: int, bias: str, side: int, zero_init: bool, interp_type: str) -> None:
        super().__init__(dim, num_heads, bias, side, zero_init)
        self.interp_type = interp_type

    def _positions(self, table: Tensor, side: int) -> Tensor:
        if self.interp_type == "beit" and len(table) != 2 * side - 1:
            table = beit_resizing(len(table), 2 * side - 1).to(table) @ table
        return super()._positions(table, side)


@functools.lru_cache(maxsize=64)
def beit_resizing(source: int, target: int) -> Tensor:
    """(target, source): what makes a table of `target` relative positions of one of `source` (BEiT, Bao et al. 2022).

    The source's distances grow from the middle on, each step `GROWTH` times the one before it; a cubic spline through
    them is read at whole distances, also beyond its ends.

    Raises:
        ArgumentError: a table of fewer than five positions.
    """
    if source < 5:
        raise ArgumentError(
            f"interp_type='beit' resizes tables of at least 5 relative positions, not of {source}: 'vitdet' does."
        )
    distances = [0.0]
    for index in range(source // 2):
        distances.append(distances[-1] + GROWTH**index)
    knots = [-distance for distance in distances[:0:-1]] + distances
    at = torch.arange(target, dtype=torch.float64) - target // 2
    return spline_matrix(torch.tensor(knots, dtype=torch.float64), at)


def spline_matrix(knots: Tensor, at: Tensor) -> Tensor:
    """(len(at), len(knots)): from values at the knots to those of their "not-a-knot" cubic spline elsewhere."""
    step, identity = knots.diff(), torch.eye(len(knots), dtype=knots.dtype)
    # system @ curvatures = right: slopes are continuous at inner knots, third derivatives at the outermost of them.
    system, right = torch.zeros_like(identity), torch.zeros_like(identity)
    for index in range(1, len(knots) - 1):
        before, after = step[index - 1], step[index]
        system[index, index - 1 : index + 2] = torch.stack([before, 2 * (before + after), after])
        right[index] = 6 * (identity[index + 1] - identity[index]) / after
        right[index] -= 6 * (identity[index] - identity[index - 1]) / before
    system[0, :3] = torch.stack([step[1], -step[0] - step[1], step[0]])
    system[-1, -3:] = torch.stack([step[-1], -step[-2] - step[-1], step[-2]])
    curvature = torch.linalg.solve(system, right)
    # Beyond the ends, the outermost pieces go on.
    piece = (torch.searchsorted(knots, at, right=True) - 1).clamp(0, len(knots) - 2)
    width = step[piece][:, None]
    value = torch.zeros(len(at), len(knots), dtype=knots.dtype)
    for end, share in ((piece, (knots[piece + 1] - at)[:, None]), (piece + 1, (at - knots[piece])[:, None])):
        value += identity[end] * share / width + curvature[end] * (share**3 / width - width * share) / 6
    return value
