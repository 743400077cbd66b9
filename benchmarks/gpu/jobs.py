"""What a part of the run is made of, and the time that it may take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from benchmarks.measure import Row, failure

__all__ = ["Budget", "Job", "Setting", "left_out", "rows_of"]


class Budget:
    """Seconds from now on.

    Args:
        seconds: how many there are.
        clock: what tells the time.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left; below 0 where it was overrun."""
        return self._end - self._clock()


@dataclass(frozen=True)
class Setting:
    """Where and how it is measured.

    Args:
        device: "cuda" or "cpu".
        small: tiny images and few rounds, for a machine that only tries the script.
        budget: of the whole run.
        keep: seconds that are to be left for the parts after this one.
    """

    device: str
    small: bool
    budget: Budget
    keep: float = 0.0

    def rounds(self, usual: int) -> int:
        """How often each call is measured."""
        return 2 if self.small else usual

    @property
    def left(self) -> float:
        """Seconds that this part may still take."""
        return self.budget.left - self.keep


@dataclass(frozen=True)
class Job:
    """Rows that are measured together.

    Args:
        what: what the row is called that stands for them where they fail or are skipped.
        make: measures; gives each row as soon as it is there.
        needs: seconds without which it isn't begun.
    """

    what: str
    make: Callable[[], Iterable[Row]]
    needs: float = 10.0


def rows_of(group: str, part: ModuleType, setting: Setting) -> Iterator[Row]:
    """The rows of a part. A job that raises is one row that says so, and one that no longer fits one that says that."""
    jobs: Iterator[Job] = iter(part.jobs(setting))
    while True:
        try:
            job = next(jobs, None)
        except Exception as error:  # the other parts are still to be measured
            yield failure(group, "the rest of the group", error)
            return
        if job is None:
            return
        if setting.left < job.needs:
            yield _skipped(group, job, setting)
            continue
        try:
            yield from job.make()
        except Exception as error:  # whatever it is, it belongs in the table
            yield failure(group, job.what, error)


def _skipped(group: str, job: Job, setting: Setting) -> Row:
    note = f"skipped: {max(setting.left, 0):.0f} seconds were left"
    return Row(group, job.what, "s", None, note=note, skipped=True)


def left_out(calls: dict[str, Callable[[], Any]]) -> list[str]:
    """Call each once, and take those of the peers out of `calls` that raise.

    Returns:
        What each of them raised.

    Raises:
        Exception: what ours raises, as it is.
    """
    said = []
    for name, call in list(calls.items()):
        try:
            call()
        except Exception as error:
            if name == "ours":
                raise
            del calls[name]
            lines = str(error).strip().splitlines()
            said.append(f"{name} fails: {type(error).__name__}: {lines[0] if lines else ''}")
            print(said[-1], flush=True)
    return said
