"""Under torch.compile: how many graphs, and how fast beside torchvision compiled alike."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from benchmarks.measure import Options, Rounds, Row, attempt, in_rounds
from benchmarks.networks import maps_of, ours, torchvisions
from benchmarks.pairs import paired
from benchmarks.workloads import Workload, prepare, train_step
from detrex_backbones import fuse_norms

GROUP = "compiled"
SIZES = ((256, 320), (320, 256), (480, 640), (384, 501))
SAME = "the compiler makes much the same program of both, so the ratio is about 1, and on either side of it"
NO_COMPILER = "torch.compile needs a C++ compiler on the CPU, and there is none here"


def rows(options: Options) -> Iterator[Row]:
    """The graphs of four image sizes, then a training step and inference of compiled networks."""
    yield attempt(GROUP, "graphs", functools.partial(_graphs, options))
    if options.device == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        yield Row(GROUP, "R-50 compiled", "s", None, {"torchvision": None}, note=NO_COMPILER)
        return
    work = Workload(1 if options.device == "cpu" else 2, (480, 640), device=options.device)
    rounds = options.rounds_or(5 if options.device == "cpu" else 30)
    for what, grad in (("step", True), ("inference, fused", False)):
        named = f"R-50 {what}, {work}"
        yield attempt(GROUP, named, functools.partial(_beside, named, work, grad, rounds))
    if options.device == "cpu":
        named = f"R-50 on ONNX Runtime, {work}"
        yield attempt(GROUP, named, functools.partial(_on_onnx_runtime, named, work, options.rounds_or()))


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


def _beside(what: str, work: Workload, grad: bool, rounds: Rounds) -> Row:
    torch._dynamo.reset()
    nets = {"ours": ours("R-50") if grad else fuse_norms(ours("R-50")), "torchvision": torchvisions("R-50")}
    images = work.images()

    def call(net: nn.Module) -> Callable[[], Any]:
        compiled = torch.compile(prepare(net, work))
        if grad:
            return lambda: train_step(compiled, images, work)  # type: ignore[arg-type]
        return lambda: torch.no_grad()(maps_of)(compiled, images)  # type: ignore[arg-type]

    calls = {name: call(net if grad else net.eval()) for name, net in nets.items()}
    times = in_rounds(calls, rounds, 2, device=work.device)
    row = paired(GROUP, what, times, against=["torchvision"], at_most=1.0)
    row.note = SAME if row.met is False else ""
    return row


def _on_onnx_runtime(what: str, work: Workload, rounds: Rounds) -> Row:
    """Both exported by torch, and run by the same engine."""
    if not find_spec("onnxruntime") or not find_spec("onnxscript"):
        return Row(GROUP, what, "s", None, {"torchvision": None}, note="onnxruntime or onnxscript is not installed")
    images = work.images()
    nets = {"ours": fuse_norms(ours("R-50")), "torchvision": torchvisions("R-50")}
    calls = {name: _session(net.eval(), images) for name, net in nets.items()}
    row = paired(GROUP, what, in_rounds(calls, rounds, 2), against=["torchvision"], at_most=1.0)
    row.note = SAME if row.met is False else ""
    return row


def _session(net: nn.Module, images: torch.Tensor) -> Callable[[], Any]:
    import onnxruntime

    program = torch.onnx.export(net, (images,), dynamo=True, verbose=False)
    assert program is not None
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        program.save(file.name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(file.name, options, providers=["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: images.numpy()}
    return lambda: session.run(None, given)
