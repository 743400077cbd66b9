"""Attention with a bias, by whichever of torch's ways is the fastest."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["attend", "attend_decomposed", "attend_maps"]

ALIGNED = 16  # channels


def attend(qkv: Tensor, bias: Tensor, scale: float, dropout: float = 0.0) -> Tensor:
    """Attention of several heads within each of N groups of tokens: softmax(scale q k^T + bias) v.

    Args:
        qkv: (N, tokens, 3, heads, channels of a head).
        bias: (heads, tokens, tokens) for every group, or (M, heads, tokens, tokens) for M groups that repeat.
        scale: factor of the logits.
        dropout: of the attention.

    Returns:
        (N, tokens, heads * channels of a head).
    """
    bias = bias.to(qkv.dtype) if bias.dim() == 4 else bias.to(qkv.dtype)[None]
    learns = bias.requires_grad and torch.is_grad_enabled()
    if learns and qkv.device.type == "cpu" and not dropout and not torch.compiler.is_compiling():
        # torch's own kernel has no gradient for a bias there, and what takes its place is slower.
        return _BiasedAttention.apply(qkv, bias, scale)  # type: ignore[no-any-return]
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
    bias = bias.expand(q.shape[0] // bias.shape[0], -1, -1, -1, -1).flatten(0, 1).expand(q.shape[0], -1, -1, -1)
    x = F.scaled_dot_product_attention(q, k, v, bias, dropout, scale=scale)
    return x.transpose(1, 2).flatten(2)


def attend_maps(
    q: Tensor, k: Tensor, v: Tensor, num_heads: int, rows: Tensor | None = None, columns: Tensor | None = None
) -> Tensor:
    """Attention between the tokens of maps, with decomposed relative positions where there are tables of them.

    Args:
        q: queries (N, Y, X, C).
        k: keys (N, I, J, C).
        v: values, likewise.
        num_heads: what C is shared by. The logits have the scale of a head's channels.
        rows: as of `attend_decomposed`, for at least Y rows of queries; None for no positions.
        columns: likewise, for at least X columns.

    Returns:
        (N, Y, X, C).
    """
    shape = q.shape
    q, k, v = (part.reshape(part.shape[0], -1, num_heads, shape[-1] // num_heads).transpose(1, 2) for part in (q, k, v))
    if rows is None or columns is None:
        attended = F.scaled_dot_product_attention(q, k, v)
    else:
        attended = attend_decomposed(q, k, v, rows[: shape[1]], columns[: shape[2]], q.shape[-1] ** -0.5)
    return attended.transpose(1, 2).reshape(shape)


def attend_decomposed(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor, scale: float) -> Tensor:
    """Attention whose bias is a product of the query with a vector for the rows and one for the columns between them.

    The bias of query (y, x) and key (i, j) is `q . rows[y, i] + q . columns[x, j]` (MViTv2, Li et al. 2022). It never
    stands in memory: its two parts are more channels of the queries, which the keys pick by ones and zeros.

    Args:
        q: (N, heads, Y * X, channels), row by row.
        k: (N, heads, I * J, channels).
        v: (N, heads, I * J, channels).
        rows: (Y, I, channels).
        columns: (X, J, channels).
        scale: factor of q . k.

    Returns:
        (N, heads, Y * X, channels).
    """
    grid = q.view(*q.shape[:2], len(rows), len(columns), -1)
    by_row = torch.einsum("nhyxc,yic->nhyxi", grid, rows).flatten(2, 3)
    by_column = torch.einsum("nhyxc,xjc->nhyxj", grid, columns).flatten(2, 3)
    of_keys = [torch.eye(part.shape[1], dtype=k.dtype, device=k.device) for part in (rows, columns)]
    channels = v.shape[-1]
    # The fast kernels want values as long as the keys, and lengths that vector instructions divide.
    filling = -(channels + by_row.shape[-1] + by_column.shape[-1]) % ALIGNED
    picks = [of_keys[0].repeat_interleave(len(of_keys[1]), 0), of_keys[1].repeat(len(of_keys[0]), 1)]
    picked = F.pad(torch.cat(picks, 1), (0, filling))
    q = torch.cat([q * scale, by_row, by_column, *([q.new_zeros(*q.shape[:3], filling)] if filling else ())], -1)
    k = torch.cat([k, picked.expand(*k.shape[:3], -1)], -1)
    x = F.scaled_dot_product_attention(q, k, F.pad(v, (0, k.shape[-1] - channels)), scale=1.0)
    return x[..., :channels]


class _BiasedAttention(torch.autograd.Function):
    """The same by matrix products, with the gradients written down: fewer passes over the logits than autograd's.

    Where all groups have one bias, which is small, the weights are computed again in the backward pass, not kept.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor, scale: float) -> Tensor:
        groups, tokens, _, heads, channels = qkv.shape
        q, k, v = qkv.permute(2, 0, 3, 1, 4).reshape(3, groups * heads, tokens, channels).unbind()
        weights = _weights(q, k, bias, scale)
        ctx.save_for_backward(q, k, v, bias if len(bias) == 1 else weights)
        ctx.scale, ctx.bias_shape, ctx.shape = scale, bias.shape, qkv.shape
        return (weights @ v).view(groups, heads, tokens, channels).transpose(1, 2).flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        q, k, v, weights = ctx.saved_tensors
        if ctx.bias_shape[0] == 1:
            weights = _weights(q, k, weights, ctx.scale)
        groups, tokens, _, heads, channels = ctx.shape
        gradient = gradient.view(groups, tokens, heads, channels).transpose(1, 2).reshape(-1, tokens, channels)
        of_qkv = torch.empty((3, *q.shape), dtype=q.dtype)
        torch.bmm(weights.transpose(1, 2), gradient, out=of_qkv[2])
        # softmax: each weight times how much its gradient is above the weighted mean of its row
        of_logits = gradient @ v.transpose(1, 2)
        of_logits = torch._softmax_backward_data(of_logits, weights, -1, weights.dtype)
        torch.bmm(of_logits, k, out=of_qkv[0])
        torch.bmm(of_logits.transpose(1, 2), q, out=of_qkv[1])
        of_qkv[:2].mul_(ctx.scale)
        of_bias = of_logits.view(-1, *ctx.bias_shape).sum(0)
        return of_qkv.view(3, groups, heads, tokens, channels).permute(1, 3, 0, 2, 4), of_bias, None


def _weights(q: Tensor, k: Tensor, bias: Tensor, scale: float) -> Tensor:
    logits = q @ k.transpose(1, 2)
    with_bias = logits.view(-1, *bias.shape)
    torch.add(bias, with_bias, alpha=scale, out=with_bias)
    return logits.softmax(-1)
