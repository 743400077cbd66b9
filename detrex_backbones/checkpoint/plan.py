"""From a checkpoint and a model's names to what a load would do: the reading that fits best, and its report."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from detrex_backbones.checkpoint.conventions import conventions
from detrex_backbones.checkpoint.files import Checkpoint
from detrex_backbones.checkpoint.match import Plan, Shapes, make_plan
from detrex_backbones.checkpoint.reading import Reading, readings
from detrex_backbones.checkpoint.report import Loaded, LoadReport, Mismatch, describe, shorten
from detrex_backbones.checkpoint.stem_adapt import fit_stem
from detrex_backbones.errors import CheckpointMatchError

OWN = "detectron2"  # the convention of this library's own names

__all__ = ["Attempt", "check_report", "plan_checkpoint"]


@dataclass(frozen=True)
class Attempt:
    """What a load would do.

    Args:
        report: of every key.
        plan: model key -> our name for what fills it.
        reading: our name -> tensor.
    """

    report: LoadReport
    plan: Plan
    reading: Reading


def plan_checkpoint(
    model: Shapes,
    checkpoint: Checkpoint,
    *,
    source: str | None = None,
    prefix: str | None = None,
    scope: str | None = None,
    stem_adapt: str = "error",
    swap_channels: bool = False,
) -> Attempt:
    """What a load would do. Names and shapes of the model are enough; nothing is refused yet, see `check_report`.

    Args:
        model: name -> shape.
        checkpoint: the file.
        source: as of `load_checkpoint`.
        prefix: as of `load_checkpoint`.
        scope: as of `load_checkpoint`.
        stem_adapt: as of `load_checkpoint`.
        swap_channels: as of `load_checkpoint`.

    Raises:
        ArgumentError: an unknown source, scope or way to adapt.
        CheckpointMatchError: the file has none of the names that `source` is known by.
    """
    candidates = readings(checkpoint.tensors, source, prefix, model)
    plans = [make_plan(model, candidate.shapes, scope) for candidate in candidates]
    best = max(range(len(plans)), key=lambda index: len(plans[index].matched))
    plan, reading = plans[best], candidates[best]
    values = _values(plan, reading)
    rivals = [
        candidate
        for candidate, other in zip(candidates, plans, strict=True)
        if candidate.source == reading.source
        and len(other.matched) == len(plan.matched)
        and not _same(values, _values(other, candidate))
    ]
    if plan.matched and not plan.ambiguous and rivals:
        places = ", ".join(repr(candidate.prefix.rstrip(".")) for candidate in (reading, *rivals))
        plan.ambiguous = f"it holds {len(rivals) + 1} networks that fit: {places}. Say which: prefix='...'."
    fit_stem(plan, reading, model, stem_adapt, swap_channels)
    return Attempt(_report(checkpoint, reading, plan, model), plan, reading)


def check_report(report: LoadReport, allow_missing: Iterable[str] = ()) -> None:
    """Refuse a load that would leave parameters of the scope without a value.

    Args:
        report: of the attempt.
        allow_missing: as of `load_checkpoint`.

    Raises:
        CheckpointMatchError: with the keys, and what to do.
    """
    keys = len(report.loaded) + len(report.left_over)
    if not report.loaded or (2 * len(report.loaded) < keys and 2 * len(report.loaded) < report.expected):
        raise CheckpointMatchError(
            f"checkpoint {report.path!r} is not for this model: {len(report.loaded)} of its {keys} tensors fit. "
            f"Names taken: {report.source}. In the file: {shorten(report.left_over) or '-'}. "
            f"In the model: {shorten(report.missing + [describe(item) for item in report.mismatched])}. "
            f"Is it the right architecture? Known conventions: {', '.join(conventions())}.",
            report,
        )
    if report.ambiguous:
        raise CheckpointMatchError(
            f"checkpoint {report.path!r} is ambiguous for this model: {report.ambiguous}", report
        )
    globs = list(allow_missing)
    missing = [key for key in report.missing if not _allowed(key, report.scope, globs)]
    mismatched = [item for item in report.mismatched if not _allowed(item.model_key, report.scope, globs)]
    if missing or mismatched:
        lines = [f"checkpoint {report.path!r} leaves parameters of the model without a value."]
        if missing:
            lines.append(f"{len(missing)} are not in the file: {shorten(missing)}.")
        if mismatched:
            lines.append(f"{len(mismatched)} have another shape: {shorten(map(describe, mismatched))}.")
        first = (missing or [mismatched[0].model_key])[0]
        lines.append(
            f"Build the model that the file is for, or allow it: allow_missing=[{first.rpartition('.')[0] + '.*'!r}]."
        )
        raise CheckpointMatchError(" ".join(lines), report)


def _report(checkpoint: Checkpoint, reading: Reading, plan: Plan, model: Shapes) -> LoadReport:
    origin, shapes = reading.origin, reading.shapes
    loaded = [
        Loaded(key, origin[stored], model[key], adapted=reading.adapted.get(stored, ""))
        for key, stored in plan.matched.items()
    ]
    mismatched = [Mismatch(key, origin[stored], model[key], shapes[stored]) for key, stored in plan.mismatched.items()]
    unused = {origin[ours]: _why_unused(ours, reading) for ours in plan.unused}
    kept = {key: why for key in plan.missing if (why := _why_kept(key, reading.source))}
    return LoadReport(
        path=str(checkpoint.path),
        format=checkpoint.format,
        container=checkpoint.container,
        source=reading.source,
        prefix=reading.prefix,
        scope=plan.scope.rstrip("."),
        loaded=loaded,
        missing=[key for key in plan.missing if key not in kept],
        mismatched=mismatched,
        kept=kept,
        left_over={**unused, **reading.left_over},
        outside=plan.outside,
        ambiguous=plan.ambiguous,
        twins=reading.twins,
    )


def _why_unused(ours: str, reading: Reading) -> str:
    """What a tensor is that nothing in the model asked for, in the words of its convention or of our own names."""
    known = conventions()
    theirs = reading.theirs.get(ours, ours)
    kin = [(known[name], theirs[len(place) :]) for name, place in reading.kin if theirs.startswith(place)]
    reasons = (convention.why_left_out(name) for convention, name in (*kin, (known[OWN], ours)))
    return next(filter(None, reasons), "no place in the model")


def _why_kept(key: str, source: str) -> str:
    """What a model's key is that files of a source never hold. Names used as stored may be of any source of ours."""
    known = conventions()
    sources = [known[source]] if source in known else [other for other in known.values() if not other.pairs]
    return next(filter(None, (convention.why_kept(key) for convention in sources)), "")


def _values(plan: Plan, reading: Reading) -> dict[str, Tensor]:
    return {key: reading.tensors[stored] for key, stored in plan.matched.items()}


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether the model would get the same values: some trainers write a network twice."""
    return one.keys() == other.keys() and all(
        tensor is other[key] or torch.equal(tensor, other[key]) for key, tensor in one.items()
    )


def _allowed(key: str, scope: str, globs: list[str]) -> bool:
    relative = key[len(scope) + 1 :] if scope else key
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs for name in (key, relative))
