"""Accuracy against latency, one point a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from detrex_backbones.text import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_speed"]

LETTER, LINE = 4.5, 10.0  # points, the width and the height of one of a name's letters
UPS = (4.0, -10.0, 16.0, -22.0, 28.0, -34.0)  # where a name may stand above its point, in points


def draw_speed(rows: Sequence[dict[str, Any]], conditions: str = "") -> Figure:
    """A picture of `detrex-backbones bench`.

    Args:
        rows: with `name`, `median` in milliseconds, `parameters`, and `top1` in per cent or None: those stand at the
            bottom, on the axis of time alone.
        conditions: what they were measured under, for the title.

    Returns:
        A figure. The area of a point is proportional to its parameters.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axis = figure.subplots()
    known = [row["top1"] for row in rows if row["top1"] is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    margin = max(high - low, 1.0) * 0.25
    floor = low - margin
    largest = max(row["parameters"] for row in rows)
    heights = [floor if row["top1"] is None else row["top1"] for row in rows]
    for index, (row, height) in enumerate(zip(rows, heights, strict=True)):
        area = 30 + 270 * row["parameters"] / largest
        marker = "|" if row["top1"] is None else "o"
        axis.scatter(row["median"], height, s=area, c=f"C{index % 10}", marker=marker, alpha=0.7)
    axis.set(xlabel="latency, median in ms", ylim=(floor - margin / 3, high + margin))
    if max(row["median"] for row in rows) > 20 * min(row["median"] for row in rows):
        axis.set_xscale("log")
        axis.margins(x=0.2)
    else:
        axis.set_xlim(0, max(row["median"] for row in rows) * 1.3)
    names = [visible(row["name"], 40) for row in rows]
    _write_names(axis, names, [(row["median"], height) for row, height in zip(rows, heights, strict=True)])
    if known:
        axis.set_ylabel("ImageNet top-1, %, as published (| : not known)")
    else:
        axis.set_yticks([])
    axis.set_title(conditions, fontsize=9)
    axis.grid(alpha=0.3)
    return figure


def _write_names(axis: Any, names: Sequence[str], points: Sequence[tuple[float, float]]) -> None:
    """A name beside each point, at the first place where it is on no other name."""
    taken: list[tuple[float, float, float]] = []
    for name, point in zip(names, points, strict=True):
        x, y = axis.transData.transform(point) * 72 / axis.figure.dpi
        width = LETTER * len(name)
        places = [(side, up) for up in UPS for side in (8.0, -8.0 - width)]
        free = [place for place in places if _is_free(x + place[0], y + place[1], width, taken)]
        right, up = free[0] if free else places[0]
        taken.append((x + right, y + up, width))
        axis.annotate(name, point, (right, up), textcoords="offset points", fontsize=8)


def _is_free(x: float, y: float, width: float, taken: Sequence[tuple[float, float, float]]) -> bool:
    return not any(abs(y - at) < LINE and x < left + wide and left < x + width for left, at, wide in taken)
