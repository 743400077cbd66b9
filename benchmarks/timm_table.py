"""The sweep's table as it stands in the documentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import timm

__all__ = ["markdown", "totals"]

HEAD = """# timm models as backbones

Which of timm's models `TimmBackbone` can use, and at which image sizes. The tables have the smallest model of each
family; a family is the models of one timm module whose names begin with the same letters. Measured with timm {version};
`python -m benchmarks.timm_sweep --markdown docs/timm.md` measures it again.

**{totals}**

Each model was built with timm's default maps and with frozen batch norms, loaded from a checkpoint of the plain timm
model with random weights, and run at two odd sizes, (161, 227) and (290, 99), padded to multiples of
`size_divisibility` (0: no padding). The maps must have the shapes that `output_shape()` promises, and must equal those
of timm's own feature network, which timm loaded from the same file. The column "timm itself" has the result of that
network with any of `strict_img_size`, `dynamic_img_size` and `dynamic_img_pad`: "the same maps", or the only sizes that
it can run. Swin and Swin V2 are compared with timm's network after its windows have been padded, as detectors do.
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
        "These take images of any size, padded to multiples of the divisibility.",
        lambda row: row.reach == "any" and not row.smaller,
    ),
    Section(
        "Maps smaller than size / stride",
        "These networks have convolutions without padding. Their maps equal timm's, but are some pixels smaller than "
        "the image size divided by the stride. `TimmBackbone` warns about it when `size_divisibility` is read, because "
        "the levels of a feature pyramid would not align.",
        lambda row: row.works and row.smaller,
    ),
    Section(
        "Built for one image size",
        "timm can't run these at any size but their default, because their position tables or windows have that size. "
        "Build them for the size that your images are padded to, with `img_size=`. `padding_constraints` gives the "
        "size of those that take only square images. The brackets have timm's error for other sizes.",
        lambda row: row.reach == "made" and not row.smaller,
    ),
    Section("Not usable", "The maps of these families can't be used by a detector.", lambda row: not row.works),
)
# Why, where the result alone doesn't say it.
WHY = {
    "crossvit": "the network resizes every image to fixed sizes, so its maps have no stride",
    "mvitv2": "smaller images run too, but their positions are counted from another centre than in training",
}
COLUMNS = ("module", "model", "wrapper", "channels", "strides", "layout", "divisibility", "sizes", "timm itself")


def totals(rows: Sequence[Any]) -> str:
    """How many work, and in which way."""
    any_size, smaller, made, failed = (sum(map(section.holds, rows)) for section in SECTIONS)
    modules = len({row.module for row in rows})
    complete = modules - len({row.module for row in rows if not row.works})
    able = [row for row in rows if "alone" not in row.timm]
    return (
        f"{len(rows) - failed} of {len(rows)} families work, and all families of {complete} of the {modules} modules. "
        f"{any_size} take images of any size, {smaller} have maps smaller than size / stride, and {made} are built for "
        f"one image size. {failed} can't be used. timm itself can run {len(able)} at other sizes than their default; "
        f"{sum(row.reach == 'any' for row in able)} of these take any size here."
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
