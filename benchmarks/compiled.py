"""Under torch.compile: how many graphs, and how fast beside torchvision compiled alike."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from benchmarks.measure import Options, Row, attempt, compared, in_turn
from benchmarks.networks import maps_of, ours, torchvisions
from benchmarks.workloads import Workload, prepare, train_step

GROUP = "compiled"
SIZES = ((256, 320), (320, 256), (480, 640), (384, 501))
NO_COMPILER = "torch.compile needs a C++ compiler on the CPU, and there is none here"


def rows(options: Options) -> Iterator[Row]:
    """The graphs of four image sizes, then a training step and inference of compiled networks."""
    yield attempt(GROUP, "graphs", functools.partial(_graphs, options))
    if options.device == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        yield Row(GROUP, "R-50 compiled", "s", None, {"torchvision": None}, note=NO_COMPILER)
        return
    work = Workload(1 if options.device == "cpu" else 2, (480, 640), device=options.device)
    rounds = options.rounds_or(7 if options.device == "cpu" else 30)
    for what, grad in (("step", True), ("inference", False)):
        named = f"R-50 {what}, {work}"
        yield attempt(GROUP, named, functools.partial(_beside, named, work, grad, rounds))


def _graphs(options: Options) -> Row:
    """One of the first size, one of all others; a break or a further compilation would be more."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(ours("R-50").to(options.device), backend=counter, fullgraph=True)
    for size in SIZES:
        compiled(torch.randn(2, 3, *size, device=options.device))
    count = counter.frame_count
    what = f"graphs for {len(SIZES)} image sizes: one, then one for every size"
    return Row(GROUP, what, "1", count, target="2", ratio=count, met=count == 2, rounds=1)


def _beside(what: str, work: Workload, grad: bool, rounds: int) -> Row:
    torch._dynamo.reset()
    nets = {"ours": ours("R-50"), "torchvision": torchvisions("R-50")}
    images = work.images()

    def call(net: nn.Module) -> Callable[[], Any]:
        compiled = torch.compile(prepare(net, work))
        if grad:
            return lambda: train_step(compiled, images, work)  # type: ignore[arg-type]
        return lambda: torch.no_grad()(maps_of)(compiled, images)  # type: ignore[arg-type]

    calls = {name: call(net if grad else net.eval()) for name, net in nets.items()}
    return compared(GROUP, what, in_turn(calls, rounds, 2, device=work.device), at_most=1.0, rounds=rounds)
