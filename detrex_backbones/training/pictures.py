"""What a run looks like: predictions over images, and the curve of its loss."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detrex_backbones.atomic_write import write_whole

__all__ = ["draw_curve", "draw_predictions"]

SIDE = 256  # of a picture in the grid, pixels
COLUMNS = 4
SHOWN = 0.5  # the least score
WHITE = (255, 255, 255)
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
    from PIL import Image
    from torchvision.utils import make_grid

    drawn = [_draw(*one, names) for one in zip(images, found, targets, strict=True)]
    picture = Image.fromarray(make_grid(drawn, nrow=COLUMNS, padding=4, pad_value=255).permute(1, 2, 0).numpy())
    write_whole(path, lambda file: picture.save(file, format="PNG"))


def _draw(image: Tensor, found: dict[str, Tensor], target: dict[str, Any], names: Sequence[str]) -> Tensor:
    """One image in the upper left corner of a square of `SIDE` pixels, with its boxes."""
    from torchvision.utils import draw_bounding_boxes

    scale = SIDE / max(image.shape[-2:])
    height, width = (max(1, round(side * scale)) for side in image.shape[-2:])
    larger = torch.nn.functional.interpolate(image[None], (height, width), mode="bilinear", antialias=True)[0]
    canvas = torch.full((3, SIDE, SIDE), 255, dtype=torch.uint8)
    canvas[:, :height, :width] = (255 * larger.clamp(0, 1)).round().byte()
    if len(target["boxes"]):
        canvas = draw_bounding_boxes(canvas, target["boxes"] * scale, colors=[WHITE] * len(target["boxes"]), width=1)
    good = found["scores"] >= SHOWN
    boxes, labels = found["boxes"][good] * scale, [int(label) - 1 for label in found["labels"][good]]
    if not labels:
        return canvas
    colours = [PALETTE[label % len(PALETTE)] for label in labels]
    canvas = draw_bounding_boxes(canvas, boxes, colors=colours, width=2)
    texts = [f"{names[label]} {score:.2f}" for label, score in zip(labels, found["scores"][good], strict=True)]
    return _write(canvas, boxes, texts, colours)


def _write(canvas: Tensor, boxes: Tensor, texts: Sequence[str], colours: Sequence[str]) -> Tensor:
    """Each text on a plate of its colour above its box, or inside where there is no room."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.fromarray(canvas.permute(1, 2, 0).numpy())
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for (left, top, _, _), text, colour in zip(boxes.tolist(), texts, colours, strict=True):
        x0, y0, x1, y1 = pen.textbbox((0, 0), text, font=font)
        x = min(max(0.0, left), SIDE - (x1 - x0) - 4)
        y = top - (y1 - y0) - 5 if top > y1 - y0 + 5 else top
        pen.rectangle((x, y, x + x1 - x0 + 4, y + y1 - y0 + 5), fill=colour)
        pen.text((x + 2 - x0, y + 2 - y0), text, fill="black", font=font)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


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
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    write_whole(path, lambda file: file.write(content.getvalue()))
