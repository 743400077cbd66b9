"""A training step, forward and backward, with frozen norms and a frozen stem."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.measure import Options, Rounds, Row, attempt, in_rounds, needs_gpu
from benchmarks.networks import NETWORKS, detectron2s, ours, torchvisions
from benchmarks.pairs import paired
from benchmarks.profiles import add_profile
from benchmarks.workloads import ON_A_GPU, Workload, prepare, train_step, workloads

GROUP = "training"
TARGETS = {"cpu": 1.15, "cuda": 1.3}  # times as fast as detectron2 and torchvision
SMALL, OF_SMALL = (320, 320), 1.1  # images as people debug and fine-tune with, and the target for them
NO_NORMS = {"cpu": None, "cuda": 1.03}  # of the time without norms
PEERS = ("torchvision", "detectron2")
# Why a row misses its target.
LIMIT = "what the network without norms takes stands in the next row: the rest are torch's convolutions"


def rows(options: Options) -> Iterator[Row]:
    """Two rows each: beside the peers, and beside the same network without norms."""
    for network in NETWORKS:
        for work in workloads(options):
            if work.device == "cpu" and work.channels_last and network != NETWORKS[0]:
                continue  # minutes more, for much the same
            yield from _steps_of(network, work, options.rounds_or(5 if options.device == "cpu" else 20))
        if options.device == "cpu":
            yield needs_gpu(GROUP, f"{network} step, {ON_A_GPU}", "at least 1.3 times as fast; 1.03 of no norms")
    yield from _steps_of(NETWORKS[0], Workload(2, SMALL, device=options.device), options.rounds_or())


def _steps_of(network: str, work: Workload, rounds: Rounds) -> Iterator[Row]:
    what = f"{network} step, {work}"
    times: dict[str, list[float]] = {}
    yield attempt(GROUP, what, functools.partial(_beside_peers, what, network, work, rounds, times))
    if times:
        beside = {"ours": times["ours"], "no norms": times["no norms"]}
        at_most = NO_NORMS[work.device]
        yield paired(GROUP, f"{what}, against no norms", beside, against=["no norms"], at_most=at_most)


def _beside_peers(what: str, network: str, work: Workload, rounds: Rounds, times: dict[str, list[float]]) -> Row:
    steps = _steps(network, work)
    times |= {"detectron2": [], **in_rounds(steps, rounds, device=work.device)}
    named = {name: times[name] for name in ("ours", *PEERS)}
    target = OF_SMALL if work.size == SMALL else TARGETS[work.device]
    row = paired(GROUP, what, named, against=PEERS, at_least=target)
    row.note = LIMIT if row.met is False else ""
    return add_profile(row, steps)


def _steps(network: str, work: Workload) -> dict[str, Callable[[], Any]]:
    nets = {
        "ours": ours(network),
        "torchvision": torchvisions(network),
        "detectron2": detectron2s(network),
        "no norms": ours(network, norm=""),
    }
    images = work.images()
    return {
        name: functools.partial(train_step, prepare(net, work), images, work)
        for name, net in nets.items()
        if net is not None
    }
