"""Whether what a load would do is what the user wants: the errors about checkpoints that don't fit."""

from __future__ import annotations

import re
from collections.abc import Iterable

from detrex_backbones.checkpoint.entry import Status
from detrex_backbones.checkpoint.match.globs import fewest_globs, is_allowed
from detrex_backbones.checkpoint.match.leftovers import MAP_NORM
from detrex_backbones.checkpoint.names.conventions import conventions
from detrex_backbones.checkpoint.report import LoadReport, by_module, choices, describe, reasons
from detrex_backbones.errors import ArgumentError, CheckpointMatchError
from detrex_backbones.text import counted, shorten

__all__ = ["ASK", "check_random_maps", "check_report"]

ASK = "`detrex-backbones infer FILE` says which network it holds, where that is known."
"""The end of a refusal that knows no network. Who finds one out, says that instead."""

# What OpenMMLab, detectron2 and maskrcnn-benchmark call the convolution that gives a deformable one its offsets.
OFFSETS = re.compile(r"\.conv2(_offset|\.conv_offset|\.offset)\.")


def check_report(report: LoadReport, allow_missing: Iterable[str] = (), allow_unused: Iterable[str] = ()) -> None:
    """Refuse a load that isn't complete from both sides.

    Args:
        report: of the plan.
        allow_missing: as of `load_checkpoint`.
        allow_unused: as of `load_checkpoint`.

    Raises:
        CheckpointMatchError: with the keys, and what to do.
        ArgumentError: globs that are no list.
    """
    for name, globs in (("allow_missing", allow_missing), ("allow_unused", allow_unused)):
        if isinstance(globs, str):
            raise ArgumentError(f"{name}={globs!r} is a string. It takes a list: [{globs!r}].")
    unread = sum(1 for entry in report.of(Status.UNREAD) if entry.model_key)
    loaded, keys = len(report.loaded) + unread, len(report.loaded) + len(report.left_over)
    whole = report.expected + len(report.outside)
    # Half of the scope or of the file, and of all the model or the file more than names share by accident.
    if not loaded or (2 * loaded < min(keys, report.expected)) or (10 * loaded < min(keys, whole)):
        raise CheckpointMatchError(
            f"checkpoint {report.path!r} is not for this model: {loaded} of its {keys} tensors fit. "
            f"Naming convention: {report.source}. In the file: {shorten(report.left_over) or '-'}. "
            f"In the model: {shorten(report.missing + [describe(item) for item in report.mismatched])}. "
            f"Is it the right architecture? Known conventions: {shorten(conventions())}."
            f"{_note(report)}{_elsewhere(report)} {ASK}",
            report,
        )
    _check_read(report, list(allow_missing))
    if report.ambiguous:
        raise CheckpointMatchError(
            f"checkpoint {report.path!r} is ambiguous for this model: {report.ambiguous}", report
        )
    _check_complete(report, list(allow_missing), list(allow_unused))


def _check_read(report: LoadReport, allow_missing: list[str]) -> None:
    """Refuse a file that has tensors for the model, but not their values."""
    unread = {
        entry.checkpoint_key: entry.why
        for entry in report.of(Status.UNREAD)
        if entry.model_key and not is_allowed(entry.model_key, allow_missing, report.scope)
    }
    if unread:
        raise CheckpointMatchError(
            f"checkpoint {report.path!r} has {len(unread)} of the model's tensors without plain values: "
            f"{'; '.join(reasons(unread))}.",
            report,
        )


def check_random_maps(report: LoadReport, allow_missing: Iterable[str] = (), instead: str = "") -> None:
    """Refuse to go on with maps that random weights make: a pyramid's, of which the file of its network has nothing.

    Args:
        report: of a load.
        allow_missing: as of `load_checkpoint`; what it allows may be random.
        instead: how to go without what is random, as a sentence; "" where there is no way.

    Raises:
        CheckpointMatchError: there is something, and how to go without it or to allow it.
    """
    random = [key for key in report.before_maps if not is_allowed(key, allow_missing, report.scope)]
    if random:
        globs = fewest_globs(random, [item.model_key for item in report.loaded])
        raise CheckpointMatchError(
            f"checkpoint {report.path!r} has no weights for {by_module(random, report.scope)} of the model, between "
            f"{report.scope!r} and the feature maps: these maps would be noise. {instead}"
            + (f"Or allow it: {override_of([*allow_missing, *globs])}." if globs else ""),
            report,
        )


def override_of(globs: list[str]) -> str:
    """The override of a config that allows these keys to be missing."""
    return f"train.load_options.allow_missing=[{','.join(map(repr, globs))}]"


def _check_complete(report: LoadReport, allow_missing: list[str], allow_unused: list[str]) -> None:
    """Refuse what isn't complete from both sides: a value for each key of the scope, a place for each of the file's."""
    unplaced = [key for key in report.unplaced if not is_allowed(key, allow_unused)]
    missing = [key for key in report.missing if not is_allowed(key, allow_missing, report.scope)]
    mismatched = [item for item in report.mismatched if not is_allowed(item.model_key, allow_missing, report.scope)]
    without = [*missing, *(item.model_key for item in mismatched)]
    if not unplaced and not without:
        return
    what = "leaves parameters of the model without a value."
    if unplaced:
        what = (
            f"is of another architecture: the model has no place for {counted(len(unplaced), 'tensor')} of the network "
            f"that the file holds: {shorten(unplaced)}."
        )
    if unplaced and all(MAP_NORM.match(key.removeprefix(report.prefix)) for key in unplaced):
        what += " They are the norms of a detector's maps: TimmBackbone(..., output_norms=True) has them."
    if any(OFFSETS.search(key) for key in unplaced):
        what += (
            " It has the offsets of deformable convolutions: make_stage(..., deform_on_per_stage=[...]) has them, and "
            "`detrex-backbones infer FILE` writes the config."
        )
    if without and not unplaced and all(".incre_modules." in f".{key}" for key in without):
        what += (
            " They are of HRNet's classifier, which detectors don't have: TimmBackbone(..., feature_location='') gives "
            "the maps of the stages, and takes the file."
        )
    lines = [f"checkpoint {report.path!r} {what}"]
    if missing:
        lines.append(f"{counted(len(missing), '', 'are')} not in the file: {shorten(missing)}.")
    if mismatched:
        lines.append(f"{counted(len(mismatched), '', 'have')} another shape: {shorten(map(describe, mismatched))}.")
    rest = {*without, *report.missing, *(item.model_key for item in report.mismatched)}
    globs = fewest_globs(without, [key for key in _keys_of(report) if key not in rest], report.scope)
    allow = f", or allow it: allow_missing={[*allow_missing, *globs]!r}" if globs and not unplaced else ""
    more = f"{_known_network(report)}{_note(report) if unplaced else ''}{_elsewhere(report)}"
    lines.append(f"Build the model that the file is for{allow}.{more or f' {ASK}'}")
    raise CheckpointMatchError(" ".join(lines), report)


def _known_network(report: LoadReport) -> str:
    """Which ready config a detector of the catalogue was made with, and what to change in it."""
    from detrex_backbones.checkpoint.fetch import find_known

    weight = find_known(report.path)
    if weight is None or not weight.name.startswith(("detectron2://", "detrex://")) or not weight.config:
        return ""
    changed = f" with {' '.join(weight.overrides)}" if weight.overrides else ""
    return f" It is {weight.name}, whose backbone is {weight.config.removesuffix('.py')}{changed}."


def _keys_of(report: LoadReport) -> list[str]:
    """Every key of the model."""
    placed = (item.model_key for item in (*report.loaded, *report.mismatched))
    return [*placed, *report.missing, *report.kept, *report.outside]


def _note(report: LoadReport) -> str:
    return f" The key names don't tell: {report.lookalikes}." if report.lookalikes else ""


def _elsewhere(report: LoadReport) -> str:
    """Which other weights the file has."""
    if not report.other_containers:
        return ""
    taken = repr(report.container) if report.container else "its top level"
    return f" The weights were read from {taken}; the file also has: {choices(report.other_containers)}."
