"""What a run looks like: predictions over images, and the curve of its loss."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from train_detector.files import write_whole

__all__ = ["draw_curve", "draw_predictions"]

SIDE = 2.6  # of an image in the grid, inches
COLUMNS = 4
SHOWN = 0.5  # the least score
# Told apart by people who see fewer colours, too (Okabe and Ito 2008).
PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")


def draw_predictions(
    path: Path,
    images: Sequence[Tensor],
    found: Sequence[dict[str, Tensor]],
    targets: Sequence[dict[str, Any]],
    names: Sequence[str],
) -> None:
    """A PNG grid: true boxes in white, found ones of a score from 0.5 on in their class's colour, with the score.

    Args:
        path: of the PNG.
        images: each (3, H, W), RGB, 0 to 1.
        found: `boxes`, `labels` and `scores` of each.
        targets: `boxes` of each.
        names: of the classes; label 1 is the first.
    """
    from matplotlib.figure import Figure

    rows = math.ceil(len(images) / COLUMNS)
    figure = Figure(figsize=(COLUMNS * SIDE, rows * SIDE))
    figure.subplots_adjust(0, 0, 1, 1, 0.02, 0.02)
    axes = figure.subplots(rows, COLUMNS, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image, boxes, target in zip(axes.flat, images, found, targets, strict=False):
        _draw(axis, image, boxes, target, names)
    _save(figure, path)


def _draw(axis: Any, image: Tensor, found: dict[str, Tensor], target: dict[str, Any], names: Sequence[str]) -> None:
    """One image with its boxes."""
    axis.imshow(image.clamp(0, 1).permute(1, 2, 0).numpy())
    axis.autoscale(False)  # a box that reaches beyond the image doesn't make it smaller
    for box in target["boxes"].tolist():
        _draw_box(axis, box, "white", 1)
    for box, label, score in zip(*(found[key].tolist() for key in ("boxes", "labels", "scores")), strict=True):
        if score >= SHOWN:
            place = int(label) - 1
            colour = PALETTE[place % len(PALETTE)]
            _draw_box(axis, box, colour, 2)
            text = f"{names[place]} {score:.2f}"
            plate = {"facecolor": colour, "edgecolor": "none", "pad": 1}
            axis.text(box[0], box[1], text, fontsize=8, va="bottom", bbox=plate, clip_on=True, parse_math=False)


def _draw_box(axis: Any, box: Sequence[float], colour: str, width: int) -> None:
    left, top, right, bottom = (side - 0.5 for side in box)  # the first pixel has its middle at 0
    axis.plot((left, right, right, left, left), (top, top, bottom, bottom, top), color=colour, linewidth=width)


def draw_curve(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    """The loss and its parts over the steps, and its mean over the last 20 steps, as a PNG.

    Args:
        path: of the PNG.
        entries: of `RunLog`: `step`, `loss` and the parts of each step.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    steps = [entry["step"] for entry in entries]
    parts = [key for key in entries[0] if key not in ("step", "loss", "lr")]
    loss = [entry["loss"] for entry in entries]
    axes.plot(steps, loss, color="0.75", linewidth=0.8, label="loss of a step")
    for key, colour in [("loss", "black"), *zip(parts, PALETTE, strict=False)]:
        values = [entry[key] for entry in entries]
        means = [sum(values[max(0, end - 20) : end]) / min(end, 20) for end in range(1, len(values) + 1)]
        axes.plot(steps, means, color=colour, label=f"{key}, mean of 20", linewidth=1.8 if key == "loss" else 1.2)
    axes.set_xlabel("step")
    axes.set_ylim(0, max(sorted(loss)[int(0.99 * (len(loss) - 1))], 1e-6) * 1.1)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    write_whole(path, content.getbuffer())
