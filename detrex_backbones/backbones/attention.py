"""Attention with a bias, by whichever of torch's ways is the fastest."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["attend"]


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
    if bias.dim() == 3:
        bias = bias[None]
    if bias.requires_grad and qkv.device.type == "cpu":
        # torch's own kernel has no gradient for a bias there, and the way round is slower than this.
        x = _by_hand(qkv, bias, scale, dropout)
    else:
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
        bias = bias.to(q.dtype).expand(len(q) // len(bias), -1, -1, -1, -1).flatten(0, 1).expand(len(q), -1, -1, -1)
        x = F.scaled_dot_product_attention(q, k, v, bias, dropout, scale=scale)
    return x.transpose(1, 2).flatten(2)


def _by_hand(qkv: Tensor, bias: Tensor, scale: float, dropout: float) -> Tensor:
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
    logits = (q * scale) @ k.transpose(-2, -1)
    logits = (logits.view(-1, *bias.shape) + bias).view_as(logits)
    weights = logits.softmax(-1)
    if dropout:
        weights = F.dropout(weights, dropout)
    return weights @ v
