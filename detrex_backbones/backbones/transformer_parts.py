"""What the transformers have in common: windows, position tables, the perceptron, drop path."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex_backbones.errors import ArgumentError
from detrex_backbones.kinds import check_probabilities
from detrex_backbones.layers.linear import Linear

__all__ = [
    "DropPath",
    "PatchEmbed",
    "drop_path_rates",
    "from_windows",
    "init_transformer",
    "mlp",
    "pair",
    "relative_positions",
    "resize_positions",
    "to_windows",
]


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of what is given as both or as one number for both."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): in training, drops a residual branch of whole images.

    Args:
        rate: how probable it is. What is kept is divided by `1 - rate`.

    Raises:
        ArgumentError: a rate that isn't a probability.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        check_probabilities({"drop_path_rate": rate})
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) -> the same, zero for some of the N."""
        if not self.training or self.rate == 0.0:
            return x
        kept = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(1 - self.rate)
        return x * (kept / (1 - self.rate) if self.rate < 1 else kept)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


def drop_path_rates(last: float, depth: int) -> list[float]:
    """The rate of each block: from 0 for the first, in equal steps, to `last`."""
    check_probabilities({"drop_path_rate": last})
    # On the CPU whatever the default device is: the values are needed, as on the meta device they could not be had.
    return torch.linspace(0, last, depth, device="cpu").tolist()


def mlp(channels: int, hidden: int, act_layer: Callable[[], nn.Module] = nn.GELU, drop: float = 0.0) -> nn.Sequential:
    """The perceptron of a block: two linear layers, `fc1` and `fc2`.

    Args:
        channels: C of the input (..., C) and the result.
        hidden: channels in between.
        act_layer: makes the activation between the layers.
        drop: dropout after each layer.
    """
    layers = OrderedDict(fc1=Linear(channels, hidden), act=act_layer(), fc2=Linear(hidden, channels))
    if drop:
        layers |= {"drop1": nn.Dropout(drop), "drop2": nn.Dropout(drop)}
        layers.move_to_end("fc2")
        layers.move_to_end("drop2")
    return nn.Sequential(layers)


class PatchEmbed(nn.Module):
    """A convolution from pixels to tokens, called `proj`.

    Args:
        kernel_size: of the convolution.
        stride: of the convolution.
        padding: of the convolution.
        in_chans: channels of the image.
        embed_dim: channels of the tokens.
    """

    def __init__(
        self,
        kernel_size: int | Sequence[int] = (16, 16),
        stride: int | Sequence[int] = (16, 16),
        padding: int | Sequence[int] = (0, 0),
        in_chans: int = 3,
        embed_dim: int = 768,
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, pair(kernel_size), pair(stride), pair(padding))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_chans, H, W) -> (N, H', W', embed_dim)."""
        tokens: Tensor = self.proj(x)
        return tokens.permute(0, 2, 3, 1).contiguous()


def to_windows(x: Tensor, size: int) -> Tensor:
    """(N, H, W, C) -> (N * windows, size, size, C), row by row; zeros fill the last ones below and at the right."""
    batch, height, width, channels = x.shape
    rows, columns = -(-height // size), -(-width // size)
    if height % size or width % size:
        x = F.pad(x, (0, 0, 0, columns * size - width, 0, rows * size - height))
    x = x.view(batch, rows, size, columns, size, channels)
    return x.transpose(2, 3).reshape(-1, size, size, channels)


def from_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """What `to_windows` made of (N, H, W, C), put together again; the filling is cut off."""
    size = windows.shape[1]
    rows, columns = -(-height // size), -(-width // size)
    x = windows.view(-1, rows, columns, size, size, windows.shape[-1]).transpose(2, 3)
    x = x.reshape(-1, rows * size, columns * size, windows.shape[-1])
    return x[:, :height, :width]


def resize_positions(table: Tensor, has_cls_token: bool, height: int, width: int) -> Tensor:
    """A table of positions (1, L, C) of a square -> (1, height, width, C), bicubic where the size differs.

    Args:
        table: rows of the square one after the other.
        has_cls_token: whether the first entry belongs to a class token, and is left out.
        height: of the map of tokens.
        width: of the map of tokens.

    Raises:
        ArgumentError: the number of positions is no square.
    """
    table = table[:, 1:] if has_cls_token else table
    side = math.isqrt(table.shape[1])
    if side * side != table.shape[1]:
        raise ArgumentError(
            f"a table of {table.shape[1]} positions is no square. With a class token, which pretrain_use_cls_token "
            f"says, it has one more than a square."
        )
    square = table.reshape(1, side, side, -1)
    if (side, side) == (height, width):
        return square
    resized = F.interpolate(square.permute(0, 3, 1, 2), size=(height, width), mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1)


def relative_positions(table: Tensor, q_size: int, k_size: int) -> Tensor:
    """The entry of a table for each query and key along one axis (MViTv2, Li et al. 2022).

    Args:
        table: (L, C), for the distances from the most negative to the most positive; resized linearly where L isn't
            `2 * max(q_size, k_size) - 1`.
        q_size: number of queries along the axis.
        k_size: number of keys along the axis. The shorter of both is stretched to the other.

    Returns:
        (q_size, k_size, C).
    """
    length = 2 * max(q_size, k_size) - 1
    if len(table) != length:
        table = F.interpolate(table.T[None], size=length, mode="linear")[0].T
    queries = torch.arange(q_size, device=table.device)[:, None] * max(k_size / q_size, 1.0)
    keys = torch.arange(k_size, device=table.device)[None, :] * max(q_size / k_size, 1.0)
    distances = queries - keys + (k_size - 1) * max(q_size / k_size, 1.0)
    return table[distances.long()]


def init_transformer(module: nn.Module) -> None:
    """For `apply`: linear layers start from a truncated normal of std 0.02 and zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
