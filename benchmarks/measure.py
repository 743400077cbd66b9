"""A row of the table, and how its numbers are measured: in turn, in one process or as processes of their own."""

from __future__ import annotations

import gc
import os
import select
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parent.parent
NEEDS_GPU = "needs a GPU"
NOT_INSTALLED = "not installed"
MARK = "benchmarks: here"
SHORT = 1.0  # seconds
ROUNDS_OF_SHORT = 15  # of what takes less than that, at least


@dataclass(frozen=True)
class Rounds:
    """How often each of several calls is measured.

    Args:
        least: if all of them take a second or longer.
        short: if one takes less.
    """

    least: int
    short: int

    def are_done(self, taken: Mapping[str, Sequence[float]]) -> bool:
        """Whether the seconds of these rounds, by the calls' names, are enough."""
        rounds = min(map(len, taken.values()))
        if rounds < self.least:
            return False
        return rounds >= self.short or min(map(statistics.median, taken.values())) >= SHORT


@dataclass(frozen=True)
class Options:
    """What the command line asks of every group.

    Args:
        device: "cpu" or "cuda".
        rounds: how often each is measured; None for what the group finds right.
    """

    device: str = "cpu"
    rounds: int | None = None

    def rounds_or(self, usual: int = 5) -> Rounds:
        """The rounds asked for; or the group's own number, and 15 at least of what takes less than a second."""
        return Rounds(self.rounds, self.rounds) if self.rounds else Rounds(usual, max(usual, ROUNDS_OF_SHORT))


@dataclass
class Row:
    """One line of the table.

    Args:
        group, what: where it stands and what is measured.
        unit: of `ours` and `peers`: "s" (shown as ms or us where that reads better), "MiB", "1" for a bare number.
        ours: our number, None where it could not be measured.
        peers: those of the others; None for one that is not installed.
        target: what is to be reached, in words.
        ratio: what the target is about, as a number.
        met: whether it is reached; None where that can't be said.
        note: what a reader has to know: why it is missed, or not measured.
        rounds: how many the medians are of.
        failed: measuring raised; `note` says what.
        spread: the quartiles of `ratio` over the rounds.
        noise: the target is missed, but by no more than that spread.
        skipped: no time was left for it.
    """

    group: str
    what: str
    unit: str
    ours: float | None
    peers: dict[str, float | None] = field(default_factory=dict)
    target: str = ""
    ratio: float | None = None
    met: bool | None = None
    note: str = ""
    rounds: int = 0
    failed: bool = False
    spread: list[float] = field(default_factory=list)
    noise: bool = False
    skipped: bool = False

    @property
    def result(self) -> str:
        """met, within noise, missed, failed, skipped, or why nothing can be said."""
        if self.failed or self.skipped:
            return "failed" if self.failed else "skipped"
        if self.met is not None:
            return "met" if self.met else "within noise" if self.noise else "missed"
        if self.note == NEEDS_GPU:
            return NEEDS_GPU
        return NOT_INSTALLED if None in self.peers.values() else "-"


def compared(
    group: str,
    what: str,
    numbers: Mapping[str, float | None],
    *,
    against: str | Sequence[str] | None = None,
    at_most: float | None = None,
    at_least: float | None = None,
    unit: str = "s",
    rounds: int = 0,
    note: str = "",
) -> Row:
    """A row of `numbers["ours"]` and the peers', with its ratio and whether the target is met.

    Args:
        numbers: "ours" and the peers by name; None for a peer that is not installed.
        against: the peer, or several, of whom the best that is there counts; by default all of them.
        at_most: the target is ours / theirs at most this.
        at_least: the target is theirs / ours, so many times as fast, at least this. Give one of the two, or none.
    """
    ours, peers = numbers["ours"], {name: number for name, number in numbers.items() if name != "ours"}
    names = [against] if isinstance(against, str) else list(against or peers)
    best = min((number for name in names if (number := peers[name]) is not None), default=None)
    whom = " and ".join(names)
    target, ratio, met = "", None, None
    if at_least is not None:
        target = f"at least {at_least:g} times as fast as {whom}"
        ratio = best / ours if best is not None and ours else None
        met = None if ratio is None else ratio >= at_least
    elif names:
        target = f"at most {at_most:g} of {whom}" if at_most is not None else ""
        ratio = ours / best if best and ours is not None else None
        met = None if ratio is None or at_most is None else ratio <= at_most
    return Row(group, what, unit, ours, peers, target, ratio, met, note, rounds)


def needs_gpu(group: str, what: str, target: str) -> Row:
    """The row of something that can't be measured here, because it needs a GPU."""
    return Row(group, what, "s", None, target=target, note=NEEDS_GPU)


def attempt(group: str, what: str, make: Callable[[], Row]) -> Row:
    """What `make` returns, or a row that says what it raised, so that the rows after it are still measured."""
    try:
        return make()
    except Exception as error:  # whatever it is, it belongs in the table
        return failure(group, what, error)


def failure(group: str, what: str, error: Exception) -> Row:
    """The row of something that raised; where it did is printed."""
    traceback.print_exception(error)
    lines = str(error).strip().splitlines()
    return Row(group, what, "s", None, note=f"{type(error).__name__}: {lines[-1] if lines else ''}", failed=True)


def in_rounds(
    calls: Mapping[str, Callable[[], Any]],
    rounds: int | Rounds,
    warmup: int = 1,
    *,
    device: str = "cpu",
    number: int = 1,
) -> dict[str, list[float]]:
    """Seconds of each call in each round, measured in turn: each round begins with another one.

    Args:
        calls: name -> function without arguments. What it returns is let go outside of what is measured.
        rounds: how often each is measured; a number is exact.
        warmup: rounds before that aren't.
        device: where "cuda", the clock waits for what was queued there.
        number: calls that one measurement is the mean of, for what takes microseconds.
    """

    def seconds(call: Callable[[], Any]) -> float:
        gc.collect()
        gc.disable()
        try:
            _wait(device)
            start = time.perf_counter()
            for _ in range(number):
                kept = call()
            _wait(device)
            taken = time.perf_counter() - start
        finally:
            gc.enable()
        del kept
        return taken / number

    return _turns({name: lambda call=call: seconds(call) for name, call in calls.items()}, rounds, warmup)


def in_processes(
    programs: Mapping[str, str | Sequence[str]], rounds: int | Rounds, warmup: int = 1, *, printed: bool = False
) -> dict[str, list[float]]:
    """Seconds of each program as a process of its own in each round, measured in turn as `in_rounds` does.

    Args:
        programs: name -> Python code, or the arguments of a command.
        rounds: how often each is run; a number is exact.
        warmup: rounds before that, which fill the file cache.
        printed: take the number that the program prints on its last line, instead of how long the process runs.

    Raises:
        RuntimeError: a program fails; with the end of what it wrote to stderr.
    """

    def seconds(program: str | Sequence[str]) -> float:
        start = time.perf_counter()
        done = subprocess.run(_argv(program), env=environment(), cwd=ROOT, capture_output=True, text=True)
        taken = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError(f"the process ended with {done.returncode}: {done.stderr[-2000:]}")
        return float(done.stdout.split()[-1]) if printed else taken

    return _turns({name: lambda code=code: seconds(code) for name, code in programs.items()}, rounds, warmup)


def peak_memory(before: str, during: str) -> float:
    """How much anonymous memory (no mapped files) a process takes at its peak beyond what it had, in MiB.

    Args:
        before: Python code that prepares, and is not counted.
        during: Python code in the same namespace, during which the peak is looked for, some thousand times a second:
            what is let go again sooner than that can be missed.

    Raises:
        RuntimeError: the process fails; with the end of what it wrote to stderr.
        OSError: the system has no /proc, as Linux does.
    """
    modest = "__import__('os').nice(10)"  # whoever looks at it should not have to wait for it
    pause = f"print({MARK!r}, flush=True); __import__('sys').stdin.readline()"
    with subprocess.Popen(
        _argv("\n".join([modest, before, pause, during, pause])),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # one pipe, which is emptied here all the time
        env=environment(),
        cwd=ROOT,
        bufsize=0,
    ) as process:
        assert process.stdin and process.stdout
        said, first, peak = b"", None, 0
        try:
            while (marks := said.count(MARK.encode())) < 2:
                if marks:
                    peak = max(peak, _anonymous(process.pid))
                    if first is None:
                        first = peak
                        process.stdin.write(b"\n")
                if select.select([process.stdout], [], [], 0.0002)[0]:
                    said += _more(process.stdout, said)
        finally:
            process.kill()
    return (peak - (first or 0)) / 2**20


def _more(stream: Any, said: bytes) -> bytes:
    read: bytes = stream.read(1 << 16)
    if not read:
        raise RuntimeError(f"the process ended early: {said.decode(errors='replace')[-2000:]}")
    return read


def _anonymous(process: int) -> int:
    """Bytes; 0 for a process that has just ended."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def _turns(seconds: Mapping[str, Callable[[], float]], rounds: int | Rounds, warmup: int) -> dict[str, list[float]]:
    rounds = Rounds(rounds, rounds) if isinstance(rounds, int) else rounds
    names = list(seconds)
    taken: dict[str, list[float]] = {name: [] for name in names}
    turn = 0
    while not rounds.are_done(taken):
        first = turn % len(names)
        for name in [*names[first:], *names[:first]]:
            one = seconds[name]()
            if turn >= warmup:
                taken[name].append(one)
        turn += 1
    return taken


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _argv(program: str | Sequence[str]) -> list[str]:
    return [sys.executable, "-c", program] if isinstance(program, str) else list(program)


def environment() -> dict[str, str]:
    """This process's, in which this checkout and its PYTHONPATH are found."""
    paths: Iterable[str] = (str(ROOT), os.environ.get("PYTHONPATH", ""))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
