"""Which of the weights in a file are those that the model takes."""

from __future__ import annotations

from typing import Any

from detrex_backbones.checkpoint.entry import Shapes
from detrex_backbones.checkpoint.files import Checkpoint
from detrex_backbones.checkpoint.match.plan import Attempt, plan_checkpoint, same_values
from detrex_backbones.checkpoint.report import LoadReport, choices
from detrex_backbones.errors import ArgumentError, CheckpointMatchError

__all__ = ["plan_best"]


def plan_best(model: Shapes, checkpoint: Checkpoint, **options: Any) -> Attempt:
    """The plan of those weights of a file that fit the model best; see `plan_checkpoint`.

    Of weights that fit equally well those of the lowest rank are taken. Where several of one rank fit, the plan is
    ambiguous, unless they would give the model the same values.

    Args:
        model: name -> shape.
        checkpoint: the weights of the file that come first, and the `others`.
        **options: of `plan_checkpoint`.

    Raises:
        ArgumentError, CheckpointMatchError: as of `plan_checkpoint`, if it raises them for all of the weights.
    """
    found: list[tuple[Checkpoint, Attempt]] = []
    errors: list[ArgumentError | CheckpointMatchError] = []
    for each in (checkpoint, *checkpoint.others):
        if found and each.rank > found[0][0].rank and any(_is_whole(attempt.report) for _, attempt in found):
            break
        try:
            found.append((each, plan_checkpoint(model, each, **options)))
        except (ArgumentError, CheckpointMatchError) as error:
            errors.append(error)
    if not found:
        raise errors[0]
    # Of equals `max` gives the first, which is that of the lowest rank.
    taken, best = max(found, key=lambda pair: _fit(pair[1].report))
    rivals = [
        each.container
        for each, attempt in found
        if each is not taken
        and each.rank == taken.rank
        and attempt.report.loaded
        # A smaller one that is whole may be the rest of the network.
        and (not _fit(attempt.report)[1] or _fit(attempt.report) == _fit(best.report))
        and not same_values(attempt.values, best.values)
    ]
    best.report.other_containers = [
        each.container for each in (checkpoint, *checkpoint.others) if each.container != taken.container
    ]
    if rivals:
        fitting = [taken.container, *rivals]
        best.report.ambiguous = f"it holds {len(fitting)} sets of weights that fit. Say which: {choices(fitting)}."
    return best


def _fit(report: LoadReport) -> tuple[int, int]:
    """How well weights fit: how many tensors find their place, and how few of the model or the file don't."""
    return len(report.loaded), -len(report.missing) - len(report.mismatched) - len(report.unplaced)


def _is_whole(report: LoadReport) -> bool:
    """Whether all of a part of the model is filled, by all of the file's network."""
    return bool(report.loaded) and not report.ambiguous and not _fit(report)[1]
