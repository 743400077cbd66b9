"""What a load did, tensor by tensor: for people in 80 columns, for programs as a dict."""

from __future__ import annotations

import html
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

from detrex_backbones.checkpoint.entry import BATCH_COUNTER, Entry, Status
from detrex_backbones.text import SHOWN, counted, shorten, visible

__all__ = ["LoadReport", "by_module", "choices", "describe", "reasons"]

WIDTH = 80
NOT_DRAWN = (BATCH_COUNTER, "pixel_mean", "pixel_std")  # what has no random values
LONGEST_LINE = 20_000  # characters


@dataclass(repr=False)
class LoadReport:
    """Which tensor of a checkpoint went where, and what became of the others. `print(report)` fits 80 columns.

    Args:
        path: of the file.
        format: how the file is built: "torch", "torch-legacy", "pickle", "safetensors".
        container: the keys that led to the weights in the file, "ema.module", "" for the top level.
        other_containers: those of other weights that are in the file.
        source: the naming convention that was recognised, "as stored" for names used as they are.
        prefix: what stood before every name in the file and was taken off.
        scope: path of the submodule that was loaded, "" for the whole model.
        entries: every tensor of the file, with what became of it.
        missing: model keys of the scope that the file has nothing for.
        kept: model key of the scope that files of this source never hold -> what it is. It kept its value.
        outside: model keys outside the scope, which kept their values.
        before_maps: those of `random` that lie between the scope and the maps that the model gives: a pyramid's.
        lookalikes: what else these very names can be, where names alone don't tell.
        ambiguous: what could as well have been matched otherwise; such a load is refused.
        stated: what the file says of how its weights were trained: `pixel_mean`, `stride_in_1x1` ...
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
    before_maps: list[str] = field(default_factory=list)
    lookalikes: str = ""
    ambiguous: str = ""
    stated: dict[str, Any] = field(default_factory=dict)
    not_finite: dict[str, int] = field(default_factory=dict)
    other_containers: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        """One line: a notebook shows it in the place of every key; `print(report)` has the summary."""
        counts = f"{len(self.loaded)} of {self.expected} tensors ({self.coverage:.1%})"
        return f"<LoadReport of {visible(self.path)!r} ({self.source}): {counts} into {self.scope!r}>"

    def _repr_html_(self) -> str:
        """The summary, for notebooks; what didn't find its place, key by key, below it."""
        keys = {
            **dict.fromkeys(self.missing, "missing"),
            **dict.fromkeys(map(describe, self.mismatched), "another shape"),
            **self.left_over,
        }
        rows = "\n".join(f"{visible(key)}: {visible(why)}" for key, why in keys.items())
        more = f"<details><summary>{len(keys)} without a place</summary><pre>{html.escape(rows)}</pre></details>"
        return f"<pre>{html.escape(str(self))}</pre>{more if keys else ''}"

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
    def random(self) -> list[str]:
        """Model keys outside the scope that nothing was loaded into, without counters and preprocessing."""
        return [key for key in self.outside if not key.endswith(NOT_DRAWN)]

    @property
    def expected(self) -> int:
        """How many tensors the file must have for the scope."""
        return len(self.loaded) + len(self.missing) + len(self.mismatched)

    @property
    def coverage(self) -> float:
        """The share of the scope's tensors that were loaded, 0 to 1."""
        return len(self.loaded) / self.expected if self.expected else 0.0

    @property
    def file_coverage(self) -> float:
        """The share of the file's network that found its place, 0 to 1: what a reason is known for doesn't count."""
        placed, others = len(self.loaded), len(self.mismatched) + len(self.unplaced)
        return placed / (placed + others) if placed else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that JSON knows."""
        return {
            "path": self.path,
            "format": self.format,
            "container": self.container,
            "other_containers": list(self.other_containers),
            "source": self.source,
            "prefix": self.prefix,
            "scope": self.scope,
            "coverage": self.coverage,
            "file_coverage": self.file_coverage,
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
            "stated": dict(self.stated),
            "left_over": dict(self.left_over),
            "unplaced": list(self.unplaced),
            "outside": list(self.outside),
            "before_maps": list(self.before_maps),
            "lookalikes": self.lookalikes,
            "ambiguous": self.ambiguous,
            "not_finite": dict(self.not_finite),
        }

    def __str__(self) -> str:
        numbers = sum(prod(item.shape) for item in self.loaded)
        container = f", under {self.container!r}" if self.container else ""
        prefix = f", prefix {self.prefix!r} removed" if self.prefix else ""
        unplaced = len(self.mismatched) + len(self.unplaced)
        lines = [
            _line("checkpoint", f"{self.path} ({self.format}{container})"),
            _line("names", f"{self.source}{prefix}"),
            _line("loaded", self._loaded_text()),
            _line("of the file", f"{len(self.loaded)} of {len(self.loaded) + unplaced} tensors, {numbers:,} numbers"),
        ]
        casts = Counter(item.cast for item in self.loaded if item.cast)
        adapted = Counter(item.adapted for item in self.loaded if item.adapted)
        found = (f"{key} ({count} numbers)" for key, count in self.not_finite.items())
        more = {
            "cast": ", ".join(f"{count} {cast}" for cast, count in casts.items()),
            "adapted": ", ".join(f"{what} ({count})" for what, count in adapted.items()),
            "missing": self.missing and f"{len(self.missing)}: {shorten(self.missing)}",
            "other shape": self.mismatched and f"{len(self.mismatched)}: {shorten(map(describe, self.mismatched))}",
            "kept": ", ".join(reasons(self.kept)),
            "left over": ", ".join(reasons(self.left_over)),
            "not taken": self.other_containers and f"other weights of the file: {choices(self.other_containers)}",
            "note": self.lookalikes and f"the key names don't tell: {self.lookalikes}",
            "WARNING": self.before_maps and f"{self.before_maps_text()}: the maps are noise",
            "AMBIGUOUS": self.ambiguous,
            "WARNING ": self.not_finite and f"NaN or infinite values in {shorten(found)}",
        }
        lines += [_line(title.strip(), str(text)) for title, text in more.items() if text]
        return "\n".join(lines)

    def before_maps_text(self) -> str:
        """How much is random between the scope and the maps that are given out, and which modules it is."""
        modules = by_module(self.before_maps, self.scope)
        keep = "keeps" if len(self.before_maps) == 1 else "keep"
        tensors = counted(len(self.before_maps), "tensor")
        return f"{tensors} between the backbone and its maps, {modules}, {keep} random values"

    def _loaded_text(self) -> str:
        """The coverage of what was meant, and of the whole model."""
        scope = f"model.{self.scope}" if self.scope else "the model"
        text = f"{len(self.loaded)} of {self.expected} of {scope}"
        random = self.random
        if not random:
            return text
        whole, keep = self.expected + len(random), "keeps" if len(random) == 1 else "keep"
        return f"{text}; {len(random)} of {whole} of the model {keep} random values: {by_module(random, self.scope)}"


def by_module(keys: list[str], scope: str = "") -> str:
    """How many keys each module has: the outermost ones that don't hold the scope."""
    inside = scope.split(".") if scope else []
    counts: Counter[str] = Counter()
    for key in keys:
        parts = key.split(".")
        shared = next((at for at, (one, other) in enumerate(zip(parts, inside, strict=False)) if one != other), 0)
        counts[".".join(parts[: shared + 1])] += 1
    return shorten(f"{module} ({count})" for module, count in counts.items())


def choices(containers: list[str]) -> str:
    """What is given to have one of several weights of a file."""
    shown = [f"container={name!r}" for name in containers]
    return f"{shorten(shown[:-1])} or {visible(shown[-1])}" if 1 < len(shown) <= SHOWN else shorten(shown)


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
