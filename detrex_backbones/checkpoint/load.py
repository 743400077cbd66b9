"""From a checkpoint to a model: choose the convention, plan, check everything, then copy, and report."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from detrex_backbones.checkpoint.check import check_report
from detrex_backbones.checkpoint.conventions import Convention, conventions
from detrex_backbones.checkpoint.files import Checkpoint, read_checkpoint
from detrex_backbones.checkpoint.match import Plan, Shapes, make_plan
from detrex_backbones.checkpoint.report import Loaded, LoadReport, Mismatch, shorten
from detrex_backbones.errors import ArgumentError, CheckpointMatchError, closest

__all__ = [
    "AS_STORED",
    "apply_checkpoint",
    "check_checkpoint",
    "copy_checkpoint",
    "load_checkpoint",
    "plan_checkpoint",
]

logger = logging.getLogger(__name__)

AS_STORED = "as stored"
NO_PLACE = "no place in the model"


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
        CheckpointMatchError: it doesn't fit: nothing matched, parameters would be left without a value, or stages of
            the model have no place for what the file has of them. Its `report` has every key.
        ArgumentError: an unknown source or scope, a model on the meta device.
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
    report = check_checkpoint(model, checkpoint, source=source, scope=scope, allow_missing=allow_missing)
    copy_checkpoint(model, checkpoint, report)
    return report


def check_checkpoint(
    model: nn.Module,
    checkpoint: Checkpoint,
    *,
    source: str | None = None,
    scope: str | None = None,
    allow_missing: Iterable[str] = (),
) -> LoadReport:
    """What `apply_checkpoint` will do, or its error. Changes nothing."""
    targets = _targets(model)
    meta = [key for key, value in targets.items() if value.is_meta]
    if meta:
        raise ArgumentError(
            f"the model has no memory for its weights: {shorten(meta)} are on the meta device. "
            f"Give it some first: model.to_empty(device='cpu')."
        )
    report = plan_checkpoint(_shapes(targets), checkpoint, source=source, scope=scope)
    for item in report.loaded:
        # As the model will have them: a cast to half precision makes large numbers infinite.
        bad = _not_finite(checkpoint.tensors[item.checkpoint_key].to(targets[item.model_key].dtype))
        if bad:
            report.not_finite[item.model_key] = bad
    check_report(report, allow_missing)
    return report


def copy_checkpoint(model: nn.Module, checkpoint: Checkpoint, report: LoadReport) -> None:
    """Do what `check_checkpoint` found."""
    targets = _targets(model)
    with torch.no_grad():
        for item in report.loaded:
            targets[item.model_key].copy_(checkpoint.tensors[item.checkpoint_key])
    report.loaded = [
        _with_cast(item, checkpoint.tensors[item.checkpoint_key].dtype, targets[item.model_key].dtype)
        for item in report.loaded
    ]
    if report.not_finite:
        logger.warning("%s: NaN or infinite values in %s", checkpoint.path, shorten(report.not_finite))


def plan_checkpoint(
    model: Shapes, checkpoint: Checkpoint, *, source: str | None = None, scope: str | None = None
) -> LoadReport:
    """What a load would do. Names and shapes of the model are enough; nothing is refused yet, see `check_report`."""
    candidates = _candidates(checkpoint.tensors, source)
    plans = [make_plan(model, candidate.shapes(checkpoint.tensors), scope) for candidate in candidates]
    best = max(range(len(plans)), key=lambda index: len(plans[index].matched))
    report = _report(checkpoint, candidates[best], plans[best], model)
    most = len(plans[best].matched)
    places = [found.prefix for found, plan in zip(candidates, plans, strict=True) if len(plan.matched) == most]
    if most and candidates[best].convention and len(set(places)) > 1 and not report.ambiguous:
        report.ambiguous = (
            f"the file has {len(places)} networks that fit equally well, under {_quoted(places)}. "
            f"Save the one that is meant to a file of its own."
        )
    return report


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
        unplaced=_unplaced(left_over, used, candidate),
        outside=plan.outside,
        ambiguous=plan.ambiguous,
    )


def _why_left_over(key: str, candidate: _Candidate) -> str:
    if not key.startswith(candidate.prefix):
        return f"outside {candidate.prefix.rstrip('.')!r}"
    reasons = (convention.why_left_out(key[len(candidate.prefix) :]) for convention in _readings(candidate))
    return next(filter(None, reasons), NO_PLACE)


def _unplaced(left_over: Mapping[str, str], used: set[str], candidate: _Candidate) -> list[str]:
    """What is left over of stages of which other tensors were used."""
    readings = _readings(candidate)
    stages = {convention.stage_of(key) for convention in readings for key in used} - {""}
    unknown = (key for key, reason in left_over.items() if reason == NO_PLACE)
    return [key for key in unknown if any(convention.stage_of(key) in stages for convention in readings)]


def _readings(candidate: _Candidate) -> list[Convention]:
    """The conventions that say what a name means; all of them where none was needed."""
    return [candidate.convention] if candidate.convention else list(conventions().values())


def _quoted(prefixes: Iterable[str]) -> str:
    return ", ".join(repr(prefix.rstrip(".")) for prefix in prefixes)


def _targets(model: nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in model.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}


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
