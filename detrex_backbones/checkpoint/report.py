"""What a load did, key by key: for people in 80 columns, for programs as a dict."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["LoadReport", "Loaded", "Mismatch"]

WIDTH = 80
SHOWN = 8  # keys of a kind before "and N more"; to_dict() has all


class Loaded(NamedTuple):
    """One tensor that found its place.

    Attributes:
        model_key: its name in the model.
        checkpoint_key: its name in the file.
        shape: of both.
        rule: what led from one name to the other: the convention, and how its name stands in the model's.
        cast: "float16 -> float32" where the dtype changed on the way, otherwise "".
        adapted: what was done to the values on the way, otherwise "".
    """

    model_key: str
    checkpoint_key: str
    shape: tuple[int, ...]
    rule: str = ""
    cast: str = ""
    adapted: str = ""


@dataclass(frozen=True)
class Mismatch:
    """A model key whose tensor in the file has another shape.

    Args:
        model_key: its name in the model.
        checkpoint_key: its name in the file.
        model_shape: of the model's.
        checkpoint_shape: of the file's.
    """

    model_key: str
    checkpoint_key: str
    model_shape: tuple[int, ...]
    checkpoint_shape: tuple[int, ...]


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
        loaded: every tensor that found its place.
        missing: model keys of the scope that the file has nothing for.
        mismatched: model keys of the scope whose tensor has another shape.
        kept: model key of the scope that files of this source never hold -> what it is. It kept its value.
        left_over: checkpoint key -> why it was not used.
        unplaced: keys left over of stages that the model has otherwise: the file is of another architecture, and such a
            load is refused.
        outside: model keys outside the scope, which kept their values.
        twins: what else these very names can be, where names alone don't tell.
        ambiguous: what could as well have been matched otherwise; such a load is refused.
        not_finite: model key -> how many of its numbers are NaN or infinite.
    """

    path: str
    format: str = ""
    container: str = ""
    source: str = ""
    prefix: str = ""
    scope: str = ""
    loaded: list[Loaded] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    mismatched: list[Mismatch] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    left_over: dict[str, str] = field(default_factory=dict)
    unplaced: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    twins: str = ""
    ambiguous: str = ""
    not_finite: dict[str, int] = field(default_factory=dict)

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
                    "checkpoint_shape": list(item.checkpoint_shape),
                }
                for item in self.mismatched
            ],
            "kept": dict(self.kept),
            "left_over": dict(self.left_over),
            "unplaced": list(self.unplaced),
            "outside": list(self.outside),
            "twins": self.twins,
            "ambiguous": self.ambiguous,
            "not_finite": dict(self.not_finite),
        }

    def __str__(self) -> str:
        numbers = sum(_count(item.shape) for item in self.loaded)
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
        if self.twins:
            lines.append(_line("note", f"names alone don't tell: {self.twins}"))
        if self.ambiguous:
            lines.append(_line("AMBIGUOUS", self.ambiguous))
        if self.not_finite:
            found = (f"{key} ({count} numbers)" for key, count in self.not_finite.items())
            lines.append(_line("WARNING", f"NaN or infinite values in {shorten(found)}"))
        return "\n".join(lines)


def describe(item: Mismatch) -> str:
    """A mismatch as text."""
    return f"{item.model_key} {item.model_shape} in the model, {item.checkpoint_shape} in the file"


def shorten(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def reasons(keys_and_reasons: dict[str, str]) -> Iterator[str]:
    """Each reason with how many tensors it holds for, and their names where they are few."""
    for reason, count in Counter(keys_and_reasons.values()).items():
        keys = [key for key, why in keys_and_reasons.items() if why == reason]
        yield f"{reason}: {count}" + (f" ({', '.join(keys)})" if count <= 2 else "")


def _line(title: str, text: str) -> str:
    indent = " " * 12
    return textwrap.fill(text, WIDTH, initial_indent=f"{title:<12}", subsequent_indent=indent, break_on_hyphens=False)


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count
