"""The sweep's table as it stands in the documentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import timm

__all__ = ["markdown", "totals"]

HEAD = """# timm models as backbones

Written by `python -m benchmarks.timm_sweep --markdown docs/timm.md`, timm {version}: the smallest model of every
family, a family being a timm module and the letters that its names begin with.

**{totals}**

Each was built with the maps that timm chooses for it, its batch norms frozen, loaded from a checkpoint of the plain
model with random weights, and run at two odd sizes, (161, 227) and (290, 99), padded to `size_divisibility` (0: as they
are). The shapes must be those of `output_shape()`, and the maps those of timm's own feature network, which timm filled
from the same file. The column "timm itself" says how far that network gets, with any of `strict_img_size`,
`dynamic_img_size` and `dynamic_img_pad`: "the same maps", or, where it can't run these sizes, the only ones it can.
Swin and Swin V2 are compared with timm's network once it pads its windows first, as detectors do.
"""


@dataclass(frozen=True)
class Section:
    """One way in which families work, or don't."""

    title: str
    words: str
    holds: Callable[[Any], bool]


SECTIONS = (
    Section(
        "Any size",
        "Images of any size, padded to multiples of the divisibility.",
        lambda row: row.reach == "any" and not row.smaller,
    ),
    Section(
        "Maps smaller than size / stride",
        "These convolve without padding, so that their maps, the same as timm's, are some pixels smaller than the "
        "image over its stride. `TimmBackbone` warns of it when `size_divisibility` is asked for: a feature pyramid "
        "would lay maps on each other that don't fit.",
        lambda row: row.works and row.smaller,
    ),
    Section(
        "The size that they are made for",
        "timm itself can't run them at another size than their own: tables of positions or windows are of that size. "
        "Make them for the size that your images are padded to, with `img_size=`. `padding_constraints` has the "
        "square of those that are bound to one. In brackets, why timm refuses the other sizes.",
        lambda row: row.reach == "made" and not row.smaller,
    ),
    Section("Fail", "Families that give no maps to detect on.", lambda row: not row.works),
)
# Why, where the result alone doesn't say it.
WHY = {
    "crossvit": "the network resizes every image to sizes of its own, whatever it is given, so that its maps have no "
    "stride",
    "mvitv2": "images smaller than that run too, with positions that are counted from another centre than the weights'",
}
COLUMNS = ("module", "model", "wrapper", "channels", "strides", "layout", "divisibility", "sizes", "timm itself")


def totals(rows: Sequence[Any]) -> str:
    """How many work, and in which way."""
    any_size, smaller, made, failed = (sum(map(section.holds, rows)) for section in SECTIONS)
    modules = len({row.module for row in rows})
    complete = modules - len({row.module for row in rows if not row.works})
    able = [row for row in rows if "alone" not in row.timm]
    return (
        f"{len(rows) - failed} of {len(rows)} families work, and {complete} of {modules} modules with all of theirs: "
        f"{any_size} at any size, {smaller} with maps smaller than size / stride, {made} at the size that they are "
        f"made for. {failed} fail. Of the {len(able)} that timm itself can run at other sizes than their own, "
        f"{sum(row.reach == 'any' for row in able)} do so here."
    )


def markdown(rows: Sequence[Any]) -> str:
    """The totals, and a table for each way in which families work or don't."""
    parts = [HEAD.format(version=timm.__version__, totals=fill(totals(rows), 116))]
    for number, section in enumerate(SECTIONS):
        listed = [row for row in rows if section.holds(row)]
        if listed:
            words = fill(section.words, 118)
            # "works" needs no column of its own in the first.
            parts.append(f"## {section.title}: {len(listed)}\n\n{words}\n\n{_table(listed, results=number > 0)}")
    return "\n".join(parts)


def _table(rows: Sequence[Any], results: bool) -> str:
    columns = (*COLUMNS, "result") if results else COLUMNS
    text = "| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|\n"
    for row in rows:
        cells = [row.module, row.model, row.wrapper, row.maps, row.strides, row.layout, row.divisibility]
        cells += [", ".join(row.sizes), row.timm, *([_reason(row)] if results else [])]
        text += "| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |\n"
    return text


def _reason(row: Any) -> str:
    reason = " ".join(row.result.split()).replace("|", "\\|")
    reason = reason if len(reason) <= 200 else reason[:200] + " ..."
    return reason + (f": {WHY[row.module]}" if row.module in WHY else "")
