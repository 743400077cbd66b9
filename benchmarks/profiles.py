"""Where a call's time and memory go: what torch's profiler says of one run of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.measure import Row

__all__ = ["add_peak", "add_profile", "allocated", "operators"]

# What the names of torch's operators contain -> what they are called here; the first that fits counts.
KINDS = {
    "conv": "convolutions",
    "mkldnn": "convolutions",
    "attention": "attention",
    "mm": "matrix products",
    "norm": "norms",
    "gelu": "activations",
    "silu": "activations",
    "relu": "activations",
    "threshold": "activations",
    "clamp": "activations",
    "pool": "pooling",
    "add": "additions",
    "copy": "copies",
    "cat": "copies",
    "index": "copies",
}
OTHERS = "everything else"
MOST = 6  # kinds of operators that a note tells of


def operators(call: Callable[[], Any]) -> dict[str, float]:
    """Seconds of each kind of operator in a call, the longest first."""
    on_gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    with profile(activities=[ProfilerActivity.CPU, *on_gpu]) as profiler:
        call()
        if on_gpu:
            torch.cuda.synchronize()
    events = profiler.key_averages()
    clock = "self_device_time_total" if any(event.self_device_time_total for event in events) else "self_cpu_time_total"
    taken: Counter[str] = Counter()
    for event in events:
        kind = next((kind for part, kind in KINDS.items() if part in event.key), OTHERS)
        taken[kind] += getattr(event, clock)
    return {kind: microseconds / 1e6 for kind, microseconds in taken.most_common()}


def add_profile(row: Row, calls: Mapping[str, Callable[[], Any]]) -> Row:
    """Say in a row that misses its target where the time goes: ours, and that of the fastest peer.

    Args:
        row: of "ours" and the peers.
        calls: "ours" and the peers' names -> what was measured.
    """
    return _note(row, calls, "by the profiler, {}: {}", _longest)


def _longest(call: Callable[[], Any]) -> str:
    shares = [f"{kind} {1000 * seconds:.0f} ms" for kind, seconds in operators(call).items()]
    return ", ".join(shares[:MOST])


def allocated(call: Callable[[], Any]) -> float:
    """MiB of tensors at the peak of a call on the CPU, beyond those that were there before it."""
    return _peak(call)[0]


def add_peak(row: Row, calls: Mapping[str, Callable[[], Any]]) -> Row:
    """Say in a row of what is allocated that misses its target in which operator that is: ours, and the least peer's.

    Args:
        row: of "ours" and the peers.
        calls: "ours" and the peers' names -> what was measured.
    """
    return _note(row, calls, "{}: the peak is in {}", lambda call: _peak(call)[1])


def _note(row: Row, calls: Mapping[str, Callable[[], Any]], words: str, tell: Callable[..., str]) -> Row:
    """Add to a row that misses its target what is to tell of our call, and of that of the best peer."""
    if row.met is False:
        peers = {name: number for name, number in row.peers.items() if number is not None and name in calls}
        names = ("ours", *sorted(peers, key=peers.__getitem__)[:1])
        row.note = "; ".join([*filter(None, [row.note]), *(words.format(name, tell(calls[name])) for name in names)])
    return row


def _peak(call: Callable[[], Any]) -> tuple[float, str]:
    """See `allocated`; and what runs then, the innermost operators last."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    held = peak = moment = 0
    for event in sorted((event for event in events if event.name() == "[memory]"), key=lambda event: event.start_ns()):
        held += event.nbytes()
        if held > peak:
            peak, moment = held, event.start_ns()
    running = [event.name() for event in events if event.start_ns() <= moment <= event.end_ns()]
    own = [name for name in running if name != "[memory]" and not name.startswith("autograd::")]
    return peak / 2**20, ", ".join(own[:3]) or "no operator"
