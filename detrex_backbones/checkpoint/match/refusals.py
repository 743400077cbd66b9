"""Whether what a load would do is what the user wants: the errors about checkpoints that don't fit."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

from detrex_backbones.checkpoint.names.conventions import conventions
from detrex_backbones.checkpoint.report import LoadReport, describe
from detrex_backbones.errors import ArgumentError, CheckpointMatchError
from detrex_backbones.text import shorten

__all__ = ["check_report"]


def check_report(report: LoadReport, allow_missing: Iterable[str] = ()) -> None:
    """Refuse a load that would leave parameters of the scope without a value.

    Raises:
        CheckpointMatchError: with the keys, and what to do.
        ArgumentError: globs that are no list.
    """
    if isinstance(allow_missing, str):
        raise ArgumentError(f"allow_missing={allow_missing!r} is a string. It takes a list: [{allow_missing!r}].")
    loaded, keys = len(report.loaded), len(report.loaded) + len(report.left_over)
    whole = report.expected + len(report.outside)
    # Half of the scope or of the file, and of all the model or the file more than names share by accident.
    if not loaded or (2 * loaded < min(keys, report.expected)) or (10 * loaded < min(keys, whole)):
        raise CheckpointMatchError(
            f"checkpoint {report.path!r} is not for this model: {loaded} of its {keys} tensors fit. "
            f"Names taken: {report.source}. In the file: {shorten(report.left_over) or '-'}. "
            f"In the model: {shorten(report.missing + [describe(item) for item in report.mismatched])}. "
            f"Is it the right architecture? Known conventions: {', '.join(conventions())}.{_note(report)}",
            report,
        )
    if report.ambiguous:
        raise CheckpointMatchError(
            f"checkpoint {report.path!r} is ambiguous for this model: {report.ambiguous}", report
        )
    if report.unplaced:
        raise CheckpointMatchError(
            f"checkpoint {report.path!r} is of another architecture: the model's stages have no place for "
            f"{len(report.unplaced)} tensors that the file has of them: {shorten(report.unplaced)}. "
            f"Build the model that the file is for.{_note(report)}",
            report,
        )
    _check_missing(report, list(allow_missing))


def _check_missing(report: LoadReport, globs: list[str]) -> None:
    missing = [key for key in report.missing if not _allowed(key, report.scope, globs)]
    mismatched = [item for item in report.mismatched if not _allowed(item.model_key, report.scope, globs)]
    if missing or mismatched:
        lines = [f"checkpoint {report.path!r} leaves parameters of the model without a value."]
        if missing:
            lines.append(f"{len(missing)} are not in the file: {shorten(missing)}.")
        if mismatched:
            lines.append(f"{len(mismatched)} have another shape: {shorten(map(describe, mismatched))}.")
        module, dot, name = (missing or [mismatched[0].model_key])[0].rpartition(".")
        glob = f"{module}.*" if dot else name
        lines.append(f"Build the model that the file is for, or allow it: allow_missing=[{glob!r}].")
        raise CheckpointMatchError(" ".join(lines), report)


def _note(report: LoadReport) -> str:
    return f" Names alone don't tell: {report.lookalikes}." if report.lookalikes else ""


def _allowed(key: str, scope: str, globs: list[str]) -> bool:
    relative = key[len(scope) + 1 :] if scope else key
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs for name in (key, relative))
