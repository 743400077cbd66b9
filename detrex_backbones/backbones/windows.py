"""From a map to windows and back, each in one pass over the tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detrex_backbones.backbones.transformer_parts import from_windows, to_windows

__all__ = ["MASKED", "Windows", "attend_in_windows", "shift_mask"]

MASKED = -100.0  # what is added to the logits of two tokens that are no neighbours, as Swin's authors have it


class _Rows(NamedTuple):
    """Which token of a batch of maps is which of the windows. Both are counted row by row."""

    sources: Tensor  # for each token of the windows, that of the maps; 0 where there is none
    places: Tensor  # for each token of the maps, that of the windows
    outside: Tensor | None  # tokens of the windows that no map has: the filling; None where there are none


class Windows:
    """How maps of one shape are cut into windows: filled up below and at the right, shifted, then cut.

    Padding, rolling and cutting would each copy all tokens; here one table of rows does it all, in both directions.
    What is compiled, traced or on the meta device goes by torch's operators.

    Args:
        x: a batch of maps (N, H, W, C).
        size: side of a window in tokens; 0 for the whole map, which is not to be cut.
        shift: how far the windows are moved down and to the right.
    """

    def __init__(self, x: Tensor, size: int, shift: int = 0) -> None:
        self.batch, self.height, self.width = x.shape[:3]
        self.size, self.shift = size, shift
        self.rows = None if not size or _is_traced(x) else self._rows(x.device)

    def cut(self, x: Tensor, filling: Tensor | None = None) -> Tensor:
        """(N, H, W, C) -> (N * windows, size, size, C).

        Args:
            x: the maps.
            filling: what tokens get that no map has, (C,); None for zeros. What a linear layer makes of zeros is its
                bias: it needn't run on the filling, which in small maps are most tokens.
        """
        if self.rows is not None:
            windows: Tensor = _Cut.apply(x.flatten(0, 2), filling, *self.rows)
            return windows.view(-1, self.size, self.size, x.shape[3])
        if self.height % self.size or self.width % self.size:
            filling = x.new_zeros(x.shape[3]) if filling is None else filling.to(x.dtype)
            below, right = -self.height % self.size, -self.width % self.size
            x = torch.cat([x, filling.expand(self.batch, below, self.width, -1)], 1)
            x = torch.cat([x, filling.expand(self.batch, self.height + below, right, -1)], 2)
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        return to_windows(x, self.size)

    def join(self, windows: Tensor) -> Tensor:
        """(N * windows, size, size, C) -> (N, H, W, C)."""
        if self.rows is not None:
            tokens: Tensor = _Join.apply(windows.flatten(0, 2), *self.rows)
            return tokens.view(self.batch, self.height, self.width, -1)
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
    return x.is_meta or torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore


class _Cut(torch.autograd.Function):
    """Rows of maps -> rows of windows. Each row of the maps has one place, so that the gradient is a selection, too."""

    @staticmethod
    def forward(tokens: Tensor, filling: Tensor | None, *rows: Any) -> Tensor:
        sources, _, outside = rows
        windows = tokens.index_select(0, sources)
        if outside is not None:
            windows[outside] = 0 if filling is None else filling.to(windows.dtype)
        return windows

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[2:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        rows = _Rows(*ctx.saved_tensors)
        of_filling = None
        if ctx.needs_input_grad[1]:
            outside = gradient[:0] if rows.outside is None else gradient.index_select(0, rows.outside)
            of_filling = outside.sum(0)
        return _Join.apply(gradient, *rows), of_filling, None, None, None


class _Join(torch.autograd.Function):
    """Rows of windows -> rows of maps."""

    @staticmethod
    def forward(windows: Tensor, *rows: Any) -> Tensor:
        return windows.index_select(0, rows[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Cut.apply(gradient, None, *ctx.saved_tensors), None, None, None


def attend_in_windows(
    q: Tensor, k: Tensor, v: Tensor, size: int, attend: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Tensor:
    """Attention within windows, of the queries that the maps have: what fills the last windows up asks nothing.

    Args:
        q: maps (N, H, W, C) of queries.
        k: keys of the windows, row by row, filled up: (N * windows, I, J, C).
        v: their values, likewise.
        size: side of a window in queries.
        attend: gives (M, y, x, C) for queries (M, y, x, C), keys and values (M, I, J, C). It is called for the whole
            windows, and once more for the cut ones at the right, below, and in the corner, where there are any.

    Returns:
        (N, H, W, C).
    """
    batch, height, width, _ = q.shape
    down, right = _whole_and_cut(height, size), _whole_and_cut(width, size)
    rows, columns = ([-(-length // size) for length in lengths] for lengths in (down, right))
    k, v = (part.view(batch, sum(rows), sum(columns), *part.shape[1:]) for part in (k, v))
    lines = []
    for line in zip(*(torch.split(part, of, 1) for part, of in ((q, down), (k, rows), (v, rows))), strict=True):
        parts = zip(line, (right, columns, columns), strict=True)
        areas = zip(*(torch.split(part, of, 2) for part, of in parts), strict=True)
        lines.append(_side_by_side([_attend_area(attend, *area) for area in areas], 2))
    return _side_by_side(lines, 1)


def _whole_and_cut(length: int, size: int) -> list[int]:
    """How much of a side lies in whole windows, and how much in the cut one at its end; without zeros."""
    return [part for part in (length - length % size, length % size) if part]


def _side_by_side(parts: list[Tensor], dim: int) -> Tensor:
    """Parts one after the other; a single one as it is, not copied."""
    return torch.cat(parts, dim) if len(parts) > 1 else parts[0]


def _attend_area(attend: Callable[[Tensor, Tensor, Tensor], Tensor], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Of windows of one shape: queries (N, H, W, C), keys and values (N, rows, columns, I, J, C) -> (N, H, W, C)."""
    batch, height, width, channels = q.shape
    rows, columns = k.shape[1:3]
    grid = (batch, rows, height // rows, columns, width // columns, channels)
    windows = q.reshape(grid).transpose(2, 3)
    attended = attend(windows.flatten(0, 2), k.flatten(0, 2), v.flatten(0, 2))
    return attended.view(windows.shape).transpose(2, 3).reshape(q.shape)


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
