"""Peak memory of a training step, beyond what the network itself takes."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch

from benchmarks.measure import Options, Row, attempt, compared, needs_gpu, peak_memory
from benchmarks.networks import NETWORKS, detectron2s, ours, torchvisions
from benchmarks.peers import detectron2_there
from benchmarks.workloads import Workload, prepare, train_step, workloads

GROUP = "memory"
SAVING = 0.6  # of detectron2's peak, with checkpoint_stages

NETS = {
    "ours": "ours({network!r})",
    "checkpoint_stages": "ours({network!r}, checkpoint_stages=True)",
    "torchvision": "torchvisions({network!r})",
    "detectron2": "detectron2s({network!r})",
}
BEFORE = """
import torch
from benchmarks.networks import detectron2s, ours, torchvisions
from benchmarks.workloads import Workload, train_step
torch.set_num_threads(2)
work = {work!r}
net = {net}
images = work.images()
train_step(net, torch.randn(1, 3, 64, 64), work)
"""
DURING = "train_step(net, images, work)"


def rows(options: Options) -> Iterator[Row]:
    """Plain beside the peers, and with `checkpoint_stages` beside detectron2."""
    for network in NETWORKS:
        work = next(iter(workloads(options)))
        numbers: dict[str, float | None] = {}
        what = f"{network} step, {work}"
        yield attempt(GROUP, what, functools.partial(_plain, what, network, work, numbers))
        if numbers:
            saving = {"ours": numbers["checkpoint_stages"], "detectron2": numbers["detectron2"]}
            what = f"{network} with checkpoint_stages, {work}"
            yield compared(GROUP, what, saving, at_most=SAVING, unit="MiB", rounds=1)
        if options.device == "cpu":
            yield needs_gpu(
                GROUP, f"{network}, 2x800x1333 on a GPU", "at most detectron2's; 0.6 with checkpoint_stages"
            )


def _plain(what: str, network: str, work: Workload, numbers: dict[str, float | None]) -> Row:
    measure = on_gpu if work.device == "cuda" else on_cpu
    for name in NETS:
        there = name != "detectron2" or detectron2_there()
        numbers[name] = measure(name, network, work) if there else None
    named = {name: numbers[name] for name in ("ours", "torchvision", "detectron2")}
    return compared(GROUP, what, named, against="detectron2", at_most=1.0, unit="MiB", rounds=1)


def on_cpu(name: str, network: str, work: Workload) -> float:
    """MiB at the peak of a step of that one of `NETS`, in a process of its own."""
    net = NETS[name].format(network=network)
    return peak_memory(BEFORE.format(work=work, net=net), DURING)


def on_gpu(name: str, network: str, work: Workload) -> float:
    """MiB at the peak of a step of that one of `NETS`, as torch's allocator counts them."""
    makers = {
        "ours": ours,
        "checkpoint_stages": functools.partial(ours, checkpoint_stages=True),
        "torchvision": torchvisions,
        "detectron2": detectron2s,
    }
    net = makers[name](network)  # type: ignore[operator]
    net, images = prepare(net, work), work.images()
    train_step(net, images, work)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    train_step(net, images, work)
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated() - before) / 2**20
