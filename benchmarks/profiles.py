"""Where a call's time and memory go: what torch's profiler says of one run of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.measure import Row

__all__ = ["add_profile", "allocated", "operators"]

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


def operators(call: Callable[[], Any]) -> str:
    """The shares of torch's operators in the time of a call, the largest first."""
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
    return ", ".join(f"{kind} {time / taken.total():.0%}" for kind, time in taken.most_common())


def add_profile(row: Row, call: Callable[[], Any]) -> Row:
    """Say in a row that misses its target where our time goes."""
    if row.met is False:
        row.note = ". ".join(filter(None, (row.note, f"of our time: {operators(call)}")))
    return row


def allocated(call: Callable[[], Any]) -> float:
    """MiB of tensors at the peak of a call on the CPU, beyond those that were there before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    held = peak = 0
    for event in sorted((event for event in events if event.name() == "[memory]"), key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 2**20
