"""A training step, forward and backward, with frozen norms and a frozen stem."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.measure import Options, Row, attempt, compared, in_turn, needs_gpu
from benchmarks.networks import NETWORKS, detectron2s, ours, torchvisions
from benchmarks.workloads import ON_A_GPU, Workload, prepare, train_step, workloads

GROUP = "training"
TARGETS = {"cpu": 1.15, "cuda": 1.3}  # times as fast as detectron2 and torchvision
NO_NORMS = {"cpu": None, "cuda": 1.03}  # of the time without norms


def rows(options: Options) -> Iterator[Row]:
    """Two rows each: beside the peers, and beside the same network without norms."""
    rounds = options.rounds_or(4 if options.device == "cpu" else 20)
    for network in NETWORKS:
        for work in workloads(options):
            if work.device == "cpu" and work.channels_last and network != NETWORKS[0]:
                continue  # minutes more, for much the same
            what = f"{network} step, {work}"
            numbers: dict[str, float | None] = {}
            yield attempt(GROUP, what, functools.partial(_beside_peers, what, network, work, rounds, numbers))
            if numbers:
                beside = {"ours": numbers["ours"], "no norms": numbers["no norms"]}
                what = f"{network} step, {work}, against no norms"
                yield compared(GROUP, what, beside, at_most=NO_NORMS[work.device], rounds=rounds)
        if options.device == "cpu":
            yield needs_gpu(GROUP, f"{network} step, {ON_A_GPU}", "at least 1.3 times as fast; 1.03 of no norms")


def _beside_peers(what: str, network: str, work: Workload, rounds: int, numbers: dict[str, float | None]) -> Row:
    numbers |= {"detectron2": None, **in_turn(_steps(network, work), rounds, device=work.device)}
    named = {name: numbers[name] for name in ("ours", "torchvision", "detectron2")}
    return compared(GROUP, what, named, at_least=TARGETS[work.device], rounds=rounds)


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
