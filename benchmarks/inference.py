"""Inference: as the network comes, and with its norms fused."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from benchmarks.measure import Options, Rounds, Row, attempt, in_rounds, needs_gpu
from benchmarks.networks import NETWORKS, detectron2s, maps_of, ours, torchvisions, with_biases
from benchmarks.pairs import paired
from benchmarks.profiles import add_profile
from benchmarks.workloads import ON_A_GPU, Workload, prepare, workloads
from detrex_backbones import fuse_norms

GROUP = "inference"
PEERS = ("torchvision", "detectron2")
EAGER = 1.02  # of the fastest peer's time
FUSED = 1.02  # of the time without norms
FUSED_ON_GPU = 1.1  # times as fast as torchvision


def rows(options: Options) -> Iterator[Row]:
    """Each size eager beside the peers, and fused beside the network without norms."""
    usual = 5 if options.device == "cpu" else 50
    for network in NETWORKS:
        for work in [Workload(1, (224, 224), device=options.device), *workloads(options)]:
            if work.device == "cpu" and work.channels_last:
                continue
            rounds = options.rounds_or(usual * (5 if work.size == (224, 224) else 1))
            yield from _network(network, work, rounds)
        if options.device == "cpu":
            yield needs_gpu(GROUP, f"{network}, {ON_A_GPU}", "at most 1.02; fused at least 1.1 times torchvision")


def _network(network: str, work: Workload, rounds: Rounds) -> Iterator[Row]:
    times: dict[str, list[float]] = {}
    what = f"{network}, {work}"

    def eager() -> Row:
        calls = _calls(network, work)
        times.update({"detectron2": [], **in_rounds(calls, rounds, 2, device=work.device)})
        named = {name: times[name] for name in ("ours", *PEERS)}
        return add_profile(paired(GROUP, what, named, against=PEERS, at_most=EAGER), calls)

    yield attempt(GROUP, what, eager)
    if not times:
        return
    fused = {"ours": times["fused"], "no norms": times["no norms"]}
    yield paired(GROUP, f"{what}, fused", fused, against=["no norms"], at_most=FUSED)
    if work.device == "cuda":
        fused = {"ours": times["fused"], "torchvision": times["torchvision"]}
        yield paired(GROUP, f"{what}, fused, against eager", fused, against=["torchvision"], at_least=FUSED_ON_GPU)


def _calls(network: str, work: Workload) -> dict[str, Callable[[], Any]]:
    nets = {
        "ours": ours(network),
        "fused": fuse_norms(ours(network)),
        "torchvision": torchvisions(network),
        "detectron2": detectron2s(network),
        # With biases, as a fused network has them.
        "no norms": with_biases(ours(network, norm="")),
    }
    images = work.images()

    @torch.no_grad()
    def run(net: nn.Module) -> Any:
        with work.casting():
            return maps_of(net, images)

    return {name: functools.partial(run, prepare(net, work).eval()) for name, net in nets.items() if net is not None}
