"""The table of backbones with their figures that `list --figures` and `bench` print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detrex_backbones.cli.terminal import print_table

__all__ = ["known_weights", "print_figures", "sort_figures"]

# Figure -> title, and how it is shown.
COLUMNS: dict[str, tuple[str, Any]] = {
    "name": ("name", lambda value: value.removesuffix(".py") if "/" in value else value),
    "top1": ("top-1", lambda value: f"{value:.2f}"),
    "top5": ("top-5", lambda value: f"{value:.2f}"),
    "parameters": ("params M", lambda value: f"{value / 1e6:.1f}"),
    "gflops": ("GFLOPs", lambda value: f"{value:.2f}"),
    "median": ("ms", lambda value: f"{value:.1f}"),
    "p95": ("p95", lambda value: f"{value:.1f}"),
    "images_per_second": ("images/s", lambda value: f"{value:.1f}"),
    "memory": ("MiB", lambda value: f"{value:.0f}"),
    "strides": ("strides", lambda value: " ".join(map(str, value))),
    "channels": ("channels", lambda value: f"{value[0]}-{value[-1]}" if len(value) > 1 else str(value[0])),
    "images": ("images", str),
    "backbone": ("backbone=", str),
}
TEXT = ("name", "strides", "channels", "images", "backbone")
FALLING = ("top1", "top5", "images_per_second")  # more is better, so it comes first


def print_figures(rows: Sequence[dict[str, Any]]) -> None:
    """A row a backbone, with the columns that any of them has a value for."""
    shown = [key for key in COLUMNS if any(row.get(key) is not None for row in rows)]
    cells = [[COLUMNS[key][1](row[key]) if row.get(key) is not None else "-" for key in shown] for row in rows]
    numbers = {index for index, key in enumerate(shown) if key not in TEXT}
    print_table(
        [COLUMNS[key][0] for key in shown], cells, right=numbers, dense=True, last_whole=shown[-1] == "backbone"
    )


def sort_figures(rows: Sequence[dict[str, Any]], key: str | None) -> list[dict[str, Any]]:
    """The rows by one of their figures, best first; those without it last. None leaves them as they are."""
    if key is None:
        return list(rows)
    known = [row for row in rows if row.get(key) is not None]
    ordered = sorted(known, key=lambda row: row[key], reverse=key in FALLING)
    return ordered + [row for row in rows if row.get(key) is None]


def known_weights(name: str) -> dict[str, Any]:
    """The weights that are known for a ready config or a timm model, the best top-1 among them, and its top-5."""
    from detrex_backbones.checkpoint.fetch import find_known
    from detrex_backbones.zoo.backbone_names import weights_of
    from detrex_backbones.zoo.listing import TIMM, short_names

    name = short_names().get(name, name)
    if name.startswith(TIMM) and not name.endswith(".py"):
        weight = find_known(f"timm://{name.removeprefix(TIMM)}")
        weights = [weight] if weight else []
    else:
        weights = weights_of(name)
    best = max(weights, key=lambda weight: weight.top1 or 0, default=None)
    rows = [{"name": weight.name, "top1": weight.top1, "top5": weight.top5} for weight in weights]
    return {"weights": rows, "top1": best and best.top1, "top5": best and best.top5}
