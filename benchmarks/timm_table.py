"""The sweep's table as it stands in the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm

HEAD = """# timm models as backbones

Written by `python -m benchmarks.timm_sweep --markdown docs/timm.md`, timm {version}: the smallest model of every timm
module, with the maps that timm chooses for it, batch norms frozen, loaded from a checkpoint of the plain model, run at
two odd sizes padded to `size_divisibility` (0: any size as it is). Shapes must be those of `output_shape()`, and
freezing must change nothing.

**{works} of {total} modules work: {any_size} at any size, {bound} at the size that they are made for
(`img_size=(H, W)`). {skipped} were not tried, because their smallest model is too large for the sweep; {failed} fail.**

"""
# Why the maps of some networks are not what their strides say; the sweep finds that, not this.
WHY = {
    "crossvit": "the network resizes every image to sizes of its own, whatever it is given",
    "inception_v3": "its first convolutions have no padding, so that maps are smaller than size / stride",
    "pit": "its first convolution has no padding, so that maps are one smaller than size / stride",
    "xception": "its first convolutions have no padding, so that maps are smaller than size / stride",
}
COLUMNS = "| module | model | wrapper | channels | strides | timm's layout | divisibility | sizes | result |\n"


def markdown(rows: Sequence[Any]) -> str:
    """The rows, with totals before them and reasons in the last column."""
    at_any = sum(row.result == "works" for row in rows)
    works = sum(row.works for row in rows)
    skipped = sum(row.result.startswith("not tried") for row in rows)
    text = HEAD.format(
        version=timm.__version__,
        works=works,
        total=len(rows),
        any_size=at_any,
        bound=works - at_any,
        skipped=skipped,
        failed=len(rows) - works - skipped,
    )
    text += COLUMNS + "|---" * 9 + "|\n"
    for row in rows:
        because = "" if row.works or row.module not in WHY else f": {WHY[row.module]}"
        reason = " ".join(row.result.split()).replace("|", "\\|")
        reason = reason if len(reason) <= 300 else reason[:300] + " ..."
        reason += because
        cells = (row.module, row.model, row.wrapper, row.maps, row.strides, row.layout, row.divisibility)
        text += "| " + " | ".join("" if cell is None else str(cell) for cell in cells)
        text += f" | {', '.join(row.sizes)} | {reason} |\n"
    return text
