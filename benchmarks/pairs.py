"""A ratio of what was measured side by side, round by round, and how far it spreads."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.measure import Row, compared

__all__ = ["above", "paired"]


def paired(
    group: str,
    what: str,
    times: Mapping[str, Sequence[float]],
    *,
    against: Sequence[str],
    at_most: float | None = None,
    at_least: float | None = None,
    note: str = "",
) -> Row:
    """A row of what `in_rounds` measured: medians, and the ratio of each round with its quartiles.

    Args:
        times: name -> seconds of each round, "ours" among them; empty for a peer that is not there.
        against: the peers of the target; the one whose median is least counts.
        at_most: the target is ours / theirs at most this.
        at_least: the target is theirs / ours, so many times as fast, at least this. Give one of the two, or none.
    """
    shown = {name: statistics.median(taken) if taken else None for name, taken in times.items()}
    rounds = len(times["ours"])
    row = compared(group, what, shown, against=against, at_most=at_most, at_least=at_least, rounds=rounds, note=note)
    there = {name: value for name in against if (value := shown[name]) is not None}
    if not there:
        return row
    pairs = zip(times["ours"], times[min(there, key=there.__getitem__)], strict=True)
    ratios = [theirs / ours if at_least is not None else ours / theirs for ours, theirs in pairs]
    row.ratio = statistics.median(ratios)
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else [row.ratio] * 3
    row.spread = [low, high]
    if at_least is not None:
        row.met, row.noise = row.ratio >= at_least, high >= at_least
    elif at_most is not None:
        row.met, row.noise = row.ratio <= at_most, low <= at_most
    row.noise = row.noise and row.met is False
    return row


def above(row: Row, times: Mapping[str, Sequence[float]], peer: str, extra: float) -> Row:
    """The row with the target of at most so many seconds more than a peer takes in the same round."""
    beyond = [ours - theirs for ours, theirs in zip(times["ours"], times[peer], strict=True)]
    row.target, row.met = f"{peer} + {extra} s", statistics.median(beyond) <= extra
    return row
