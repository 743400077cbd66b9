"""From a checkpoint to a model: choose the convention, plan, check everything, then copy, and report."""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from detrex_backbones.checkpoint.conventions import Convention, conventions
from detrex_backbones.checkpoint.files import Checkpoint, read_checkpoint
from detrex_backbones.checkpoint.match import Plan, Shapes, make_plan
from detrex_backbones.checkpoint.report import Loaded, LoadReport, Mismatch, describe, shorten
from detrex_backbones.errors import ArgumentError, CheckpointMatchError, closest

__all__ = ["AS_STORED", "apply_checkpoint", "load_checkpoint", "plan_checkpoint"]

logger = logging.getLogger(__name__)

AS_STORED = "as stored"


def load_checkpoint(
    model: nn.Module,
    path: str | Path,
    *,
    source: str | None = None,
    scope: str | None = None,
    allow_missing: Iterable[str] = (),
) -> LoadReport:
    """Load a checkpoint into a model, all of it into the right place, or refuse.

    The naming convention is recognised from the keys, and the submodule that the checkpoint is for from the names.
    Every parameter and buffer of that submodule must get a value. Where an error is raised the model keeps the weights
    that it had. dtype and device of the model stay; values are cast and copied.

    Args:
        model: changed in place.
        path: of the checkpoint.
        source: name of the convention ("torchvision", "detectron2", "as stored"); None to recognise it.
        scope: path of the submodule; "" for the whole model, None to find it.
        allow_missing: globs of model keys that may stay without a value or have another shape, with or without the
            scope before them: "linear.*".

    Returns:
        What went where.

    Raises:
        CheckpointFileError: the file can't be read.
        CheckpointMatchError: it doesn't fit: nothing matched, or parameters would be left without a value. Its `report`
            has every key.
        ArgumentError: an unknown source or scope.
    """
    checkpoint = read_checkpoint(path)
    report = apply_checkpoint(model, checkpoint, source=source, scope=scope, allow_missing=allow_missing)
    logger.info("loaded a checkpoint\n%s", report)
    return report


def apply_checkpoint(
    model: nn.Module,
    checkpoint: Checkpoint,
    *,
    source: str | None = None,
    scope: str | None = None,
    allow_missing: Iterable[str] = (),
) -> LoadReport:
    """`load_checkpoint` for a checkpoint that was read already."""
    targets = {key: value for key, value in model.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}
    report = plan_checkpoint(_shapes(targets), checkpoint, source=source, scope=scope)
    for item in report.loaded:
        bad = _not_finite(checkpoint.tensors[item.checkpoint_key])
        if bad:
            report.not_finite[item.model_key] = bad
    check_report(report, allow_missing)
    with torch.no_grad():
        for item in report.loaded:
            targets[item.model_key].copy_(checkpoint.tensors[item.checkpoint_key])
    report.loaded = [
        _with_cast(item, checkpoint.tensors[item.checkpoint_key].dtype, targets[item.model_key].dtype)
        for item in report.loaded
    ]
    if report.not_finite:
        logger.warning("%s: NaN or infinite values in %s", checkpoint.path, shorten(report.not_finite))
    return report


def plan_checkpoint(
    model: Shapes, checkpoint: Checkpoint, *, source: str | None = None, scope: str | None = None
) -> LoadReport:
    """What a load would do. Names and shapes of the model are enough; nothing is refused yet, see `check_report`."""
    candidates = _candidates(checkpoint.tensors, source)
    plans = [make_plan(model, candidate.shapes(checkpoint.tensors), scope) for candidate in candidates]
    best = max(range(len(plans)), key=lambda index: len(plans[index].matched))
    return _report(checkpoint, candidates[best], plans[best], model)


def check_report(report: LoadReport, allow_missing: Iterable[str] = ()) -> None:
    """Refuse a load that would leave parameters of the scope without a value.

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


@dataclass(frozen=True)
class _Candidate:
    """One reading of the file's names."""

    convention: Convention | None
    prefix: str
    names: Mapping[str, str]  # in the model's naming -> in the file

    def shapes(self, tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensors[key].shape) for name, key in self.names.items()}


def _candidates(tensors: Mapping[str, Tensor], source: str | None) -> list[_Candidate]:
    known = conventions()
    if source not in (None, AS_STORED, *known):
        allowed = [AS_STORED, *known]
        raise ArgumentError(f"source={source!r} is not known. Allowed: {', '.join(allowed)}.{closest(source, allowed)}")
    # As stored comes first, and so wins where a renaming gains nothing.
    found = [_Candidate(None, "", {key: key for key in tensors})] if source in (None, AS_STORED) else []
    for convention in known.values():
        if source in (None, convention.name):
            found += [_renamed(convention, prefix, tensors) for prefix in convention.prefixes(tensors)]
    if not found:
        raise CheckpointMatchError(
            f"the checkpoint has none of the names that source={source!r} is known by: "
            f"{', '.join(known[str(source)].anchors)}. It has: {shorten(tensors)}."
        )
    return found


def _renamed(convention: Convention, prefix: str, tensors: Mapping[str, Tensor]) -> _Candidate:
    names = {
        convention.rename(key[len(prefix) :], tensor.dim()): key
        for key, tensor in tensors.items()
        if key.startswith(prefix)
    }
    return _Candidate(convention, prefix, names)


def _report(checkpoint: Checkpoint, candidate: _Candidate, plan: Plan, model: Shapes) -> LoadReport:
    names = candidate.names
    loaded = [Loaded(key, names[stored], model[key]) for key, stored in plan.matched.items()]
    mismatched = [
        Mismatch(key, names[stored], model[key], tuple(checkpoint.tensors[names[stored]].shape))
        for key, stored in plan.mismatched.items()
    ]
    used = {item.checkpoint_key for item in loaded} | {item.checkpoint_key for item in mismatched}
    left_over = {key: _why_left_over(key, candidate) for key in checkpoint.tensors if key not in used}
    return LoadReport(
        path=str(checkpoint.path),
        format=checkpoint.format,
        container=checkpoint.container,
        source=candidate.convention.name if candidate.convention else AS_STORED,
        prefix=candidate.prefix,
        scope=plan.scope.rstrip("."),
        loaded=loaded,
        missing=plan.missing,
        mismatched=mismatched,
        left_over=left_over,
        outside=plan.outside,
        ambiguous=plan.ambiguous,
    )


def _why_left_over(key: str, candidate: _Candidate) -> str:
    if not key.startswith(candidate.prefix):
        return f"outside {candidate.prefix.rstrip('.')!r}"
    readings = [candidate.convention] if candidate.convention else list(conventions().values())
    reasons = (convention.why_left_out(key[len(candidate.prefix) :]) for convention in readings)
    return next(filter(None, reasons), "no place in the model")


def _allowed(key: str, scope: str, globs: list[str]) -> bool:
    relative = key[len(scope) + 1 :] if scope else key
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs for name in (key, relative))


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def _not_finite(tensor: Tensor) -> int:
    # A sum is finite unless something in it isn't, or it overflows: count only then.
    if not tensor.is_floating_point() or bool(torch.isfinite(tensor.sum(dtype=torch.float32))):
        return 0
    return int((~torch.isfinite(tensor)).sum())


def _with_cast(item: Loaded, stored: torch.dtype, wanted: torch.dtype) -> Loaded:
    if stored == wanted:
        return item
    cast = f"{str(stored).removeprefix('torch.')} -> {str(wanted).removeprefix('torch.')}"
    return Loaded(item.model_key, item.checkpoint_key, item.shape, cast)
