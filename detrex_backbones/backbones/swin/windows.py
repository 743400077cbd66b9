"""From a map to shifted windows and back, each in one pass over the tokens."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from detrex_backbones.backbones.transformer_parts import from_windows, to_windows

__all__ = ["MASKED", "Windows", "shift_mask"]

MASKED = -100.0  # what is added to the logits of two tokens that are no neighbours, as the authors have it


class _Rows(NamedTuple):
    """Which token of a batch of maps is which of the windows. Both are counted row by row."""

    sources: Tensor  # for each token of the windows, that of the maps; 0 where there is none
    places: Tensor  # for each token of the maps, that of the windows
    outside: Tensor | None  # tokens of the windows that no map has: the filling; None where there are none


class Windows:
    """How maps of one shape are cut into windows: filled with zeros below and at the right, shifted, then cut.

    Padding, rolling and cutting would each copy all tokens; here one table of rows does it all, in both directions.
    What is compiled, traced or on the meta device goes by torch's operators.

    Args:
        x: a batch of maps (N, H, W, C).
        size: side of a window in tokens.
        shift: how far the windows are moved down and to the right.
    """

    def __init__(self, x: Tensor, size: int, shift: int) -> None:
        self.batch, self.height, self.width = x.shape[:3]
        self.size, self.shift = size, shift
        self.rows = None if _is_traced(x) else self._rows(x.device)

    def cut(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> (N * windows, size, size, C)."""
        if self.rows is not None:
            return _Cut.apply(x.flatten(0, 2), *self.rows).view(-1, self.size, self.size, x.shape[3])  # type: ignore
        if self.shift:
            x = F.pad(x, (0, 0, 0, -self.width % self.size, 0, -self.height % self.size))
            x = x.roll((-self.shift, -self.shift), (1, 2))
        return to_windows(x, self.size)

    def join(self, windows: Tensor) -> Tensor:
        """(N * windows, size, size, C) -> (N, H, W, C)."""
        if self.rows is not None:
            tokens = _Join.apply(windows.flatten(0, 2), *self.rows)  # type: ignore[no-untyped-call]
            return tokens.view(self.batch, self.height, self.width, -1)  # type: ignore[no-any-return]
        if not self.shift:
            return from_windows(windows, self.height, self.width)
        x = from_windows(windows, self.height + -self.height % self.size, self.width + -self.width % self.size)
        return x.roll((self.shift, self.shift), (1, 2))[:, : self.height, : self.width]

    def _rows(self, device: torch.device) -> _Rows:
        down, right = (
            (torch.arange(length + -length % self.size, device=device) + self.shift) % (length + -length % self.size)
            for length in (self.height, self.width)
        )
        sources = down[:, None] * self.width + right
        inside = (down < self.height)[:, None] & (right < self.width)
        first = torch.arange(self.batch, device=device)[:, None, None] * (self.height * self.width)
        sources = torch.where(inside, sources + first, -1)
        sources = to_windows(sources[..., None], self.size).flatten()
        outside = None
        tokens = torch.arange(len(sources), device=device)
        if inside.shape != (self.height, self.width):
            outside, tokens = tokens[sources < 0], tokens[sources >= 0]
            places = torch.empty(self.batch * self.height * self.width, dtype=torch.long, device=device)
            return _Rows(sources.clamp(min=0), places.index_copy_(0, sources[tokens], tokens), outside)
        return _Rows(sources, torch.empty_like(sources).index_copy_(0, sources, tokens), None)


def _is_traced(x: Tensor) -> bool:
    return x.is_meta or torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[no-untyped-call]


def _cut(tokens: Tensor, rows: _Rows) -> Tensor:
    windows = tokens.index_select(0, rows.sources)
    return windows if rows.outside is None else windows.index_fill_(0, rows.outside, 0)


class _Cut(torch.autograd.Function):
    """Rows of maps -> rows of windows. Each row of the maps is in one place, so the gradient is a selection, too."""

    @staticmethod
    def forward(tokens: Tensor, *rows: Any) -> Tensor:
        return _cut(tokens, _Rows(*rows))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Join.apply(gradient, *ctx.saved_tensors), None, None, None  # type: ignore[no-untyped-call]


class _Join(torch.autograd.Function):
    """Rows of windows -> rows of maps."""

    @staticmethod
    def forward(windows: Tensor, *rows: Any) -> Tensor:
        return windows.index_select(0, _Rows(*rows).places)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Cut.apply(gradient, *ctx.saved_tensors), None, None, None  # type: ignore[no-untyped-call]


def shift_mask(x: Tensor, size: int, shift: int) -> Tensor:
    """(windows, size^2, size^2): `MASKED` for pairs of tokens that only the shift has brought into one window.

    Args:
        x: a batch of maps (N, H, W, C).
        size: side of a window in tokens.
        shift: how far the windows are moved.
    """
    areas = []
    for length in x.shape[1:3]:
        padded = length + -length % size
        places = torch.arange(padded, device=x.device)
        areas.append((places >= padded - size).to(x.dtype) + (places >= padded - shift))
    area = to_windows((3 * areas[0][:, None] + areas[1])[None, ..., None], size).flatten(1)
    return (area[:, None] != area[:, :, None]).to(x.dtype) * MASKED
