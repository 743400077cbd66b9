"""What a load did, tensor by tensor: for people in 80 columns, for programs as a dict."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

from detrex_backbones.checkpoint.entry import Entry, Status
from detrex_backbones.text import shorten, visible

__all__ = ["LoadReport", "describe"]

WIDTH = 80
LONGEST_LINE = 20_000  # characters


@dataclass
class LoadReport:
    """Which tensor of a checkpoint went where, and what became of the others. `print(report)` fits 80 columns.

    Args:
        path: of the file.
        format: how the file is built: "torch", "torch-legacy", "pickle", "safetensors".
        container: the key that the weights stood under in the file, "" for the top level.
        source: the naming convention that was recognised, "as stored" for names used as they are.
        prefix: what stood before every name in the file and was taken off.
        scope: path of the submodule that was loaded, "" for the whole model.
        entries: every tensor of the file, with what became of it.
        missing: model keys of the scope that the file has nothing for.
        kept: model key of the scope that files of this source never hold -> what it is. It kept its value.
        outside: model keys outside the scope, which kept their values.
        lookalikes: what else these very names can be, where names alone don't tell.
        ambiguous: what could as well have been matched otherwise; such a load is refused.
        not_finite: model key -> how many of its numbers are NaN or infinite.
    """

    path: str
    format: str = ""
    container: str = ""
    source: str = ""
    prefix: str = ""
    scope: str = ""
    entries: list[Entry] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)
    lookalikes: str = ""
    ambiguous: str = ""
    not_finite: dict[str, int] = field(default_factory=dict)

    def of(self, *statuses: Status) -> list[Entry]:
        """The tensors of the file that became this."""
        return [entry for entry in self.entries if entry.status in statuses]

    @property
    def loaded(self) -> list[Entry]:
        """Every tensor that found its place."""
        return self.of(Status.LOADED)

    @property
    def mismatched(self) -> list[Entry]:
        """Those whose place in the model has another shape."""
        return self.of(Status.OTHER_SHAPE)

    @property
    def left_over(self) -> dict[str, str]:
        """Checkpoint key -> why it was not used."""
        placed = (Status.LOADED, Status.OTHER_SHAPE)
        return {entry.checkpoint_key: entry.why for entry in self.entries if entry.status not in placed}

    @property
    def unplaced(self) -> list[str]:
        """Keys left over of stages that the model has otherwise: of another architecture, so the load is refused."""
        return [entry.checkpoint_key for entry in self.of(Status.OTHER_ARCHITECTURE)]

    @property
    def expected(self) -> int:
        """How many tensors the file must have for the scope."""
        return len(self.loaded) + len(self.missing) + len(self.mismatched)

    @property
    def coverage(self) -> float:
        """The share of the scope's tensors that were loaded, 0 to 1."""
        return len(self.loaded) / self.expected if self.expected else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that JSON knows."""
        return {
            "path": self.path,
            "format": self.format,
            "container": self.container,
            "source": self.source,
            "prefix": self.prefix,
            "scope": self.scope,
            "coverage": self.coverage,
            "loaded": [
                {
                    "model_key": item.model_key,
                    "checkpoint_key": item.checkpoint_key,
                    "shape": list(item.shape),
                    "rule": item.rule,
                    "cast": item.cast,
                    "adapted": item.adapted,
                }
                for item in self.loaded
            ],
            "missing": list(self.missing),
            "mismatched": [
                {
                    "model_key": item.model_key,
                    "checkpoint_key": item.checkpoint_key,
                    "model_shape": list(item.model_shape),
                    "checkpoint_shape": list(item.shape),
                }
                for item in self.mismatched
            ],
            "kept": dict(self.kept),
            "left_over": dict(self.left_over),
            "unplaced": list(self.unplaced),
            "outside": list(self.outside),
            "lookalikes": self.lookalikes,
            "ambiguous": self.ambiguous,
            "not_finite": dict(self.not_finite),
        }

    def __str__(self) -> str:
        numbers = sum(prod(item.shape) for item in self.loaded)
        container = f", under {self.container!r}" if self.container else ""
        prefix = f", prefix {self.prefix!r} taken off" if self.prefix else ""
        scope = repr(self.scope) if self.scope else "the whole model"
        outside = f"; {len(self.outside)} tensors outside it kept their values" if self.outside else ""
        lines = [
            _line("checkpoint", f"{self.path} ({self.format}{container})"),
            _line("names", f"{self.source}{prefix}"),
            _line("scope", f"{scope}{outside}"),
            _line(
                "loaded", f"{len(self.loaded)} of {self.expected} tensors ({self.coverage:.1%}), {numbers:,} numbers"
            ),
        ]
        casts = Counter(item.cast for item in self.loaded if item.cast)
        if casts:
            lines.append(_line("cast", ", ".join(f"{count} {cast}" for cast, count in casts.items())))
        adapted = Counter(item.adapted for item in self.loaded if item.adapted)
        if adapted:
            lines.append(_line("adapted", ", ".join(f"{what} ({count})" for what, count in adapted.items())))
        if self.missing:
            lines.append(_line("missing", f"{len(self.missing)}: {shorten(self.missing)}"))
        if self.mismatched:
            lines.append(_line("other shape", f"{len(self.mismatched)}: {shorten(map(describe, self.mismatched))}"))
        if self.kept:
            lines.append(_line("kept", ", ".join(reasons(self.kept))))
        if self.left_over:
            lines.append(_line("left over", ", ".join(reasons(self.left_over))))
        if self.lookalikes:
            lines.append(_line("note", f"names alone don't tell: {self.lookalikes}"))
        if self.ambiguous:
            lines.append(_line("AMBIGUOUS", self.ambiguous))
        if self.not_finite:
            found = (f"{key} ({count} numbers)" for key, count in self.not_finite.items())
            lines.append(_line("WARNING", f"NaN or infinite values in {shorten(found)}"))
        return "\n".join(lines)


def describe(item: Entry) -> str:
    """A tensor of another shape than the model's as text."""
    return f"{item.model_key} {item.model_shape} in the model, {item.shape} in the file"


def reasons(keys_and_reasons: dict[str, str]) -> Iterator[str]:
    """Each reason with how many tensors it holds for, and their names where they are few."""
    for reason, count in Counter(keys_and_reasons.values()).items():
        keys = [key for key, why in keys_and_reasons.items() if why == reason]
        yield f"{reason}: {count}" + (f" ({', '.join(keys)})" if count <= 2 else "")


def _line(title: str, text: str) -> str:
    text = visible(
        text, longest=LONGEST_LINE
    )  # whatever names the file has: they can neither forge a line nor hide one
    indent = " " * 12
    return textwrap.fill(text, WIDTH, initial_indent=f"{title:<12}", subsequent_indent=indent, break_on_hyphens=False)
