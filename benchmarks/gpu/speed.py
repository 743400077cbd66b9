"""A training step and inference of four networks: float32 with TF32 and bfloat16, in both memory formats.

Two images, as a detector trains with on each card; R-50 with eight, too, which a large card needs to be busy. Of the
ResNets' steps a profile tells what their kernels take by themselves: the rest of a step is the host, launching them.
"""

from __future__ import annotations

import functools
import gc
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from benchmarks.gpu.jobs import Job, Setting, left_out
from benchmarks.gpu.networks import NETWORKS, PEERS, SIZES, makers
from benchmarks.measure import Row, compared, in_rounds
from benchmarks.networks import maps_of
from benchmarks.pairs import paired
from benchmarks.workloads import DETECTOR, Workload, prepare, train_step

GROUP = "speed"
STEP = 1.3  # a ResNet's, times as fast as torchvision and detectron2
NO_NORMS = 1.03  # of a step's time without norms
EAGER = 1.02  # of the fastest peer's time, inference
FUSED = 1.02  # of the time without norms
FUSED_AGAIN = 1.1  # times as fast as torchvision
OTHERS = 1.0  # Swin-T and ConvNeXt-T: as fast as the fastest peer
BATCHES = {"R-50": (2, 8)}

Times = Mapping[str, list[float]]


def jobs(setting: Setting) -> Iterator[Job]:
    """For each network and workload one of steps and one of inference. The networks of one are built once."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    for network, training in itertools.product(NETWORKS, (True, False)):
        nets = _Nets(network, training, setting.device)
        for work in _workloads(network, setting):
            kind = "step" if training else "inference"
            what = f"{network} {kind}, {work}"
            yield Job(what, functools.partial(_rows, what, nets, work, setting))
        nets.free()


def _workloads(network: str, setting: Setting) -> Iterator[Workload]:
    size = (64, 96) if setting.small else SIZES.get(network, DETECTOR)
    for batch in (2,) if setting.small else BATCHES.get(network, (2,)):
        for autocast, channels_last in itertools.product((False, True), repeat=2):
            yield Workload(batch, size, autocast=autocast, channels_last=channels_last, device=setting.device)


class _Nets:
    """The networks of everybody, built when first asked for."""

    def __init__(self, network: str, training: bool, device: str) -> None:
        self.network, self.training, self.device = network, training, device
        self._built: dict[str, nn.Module] = {}
        self.failures: list[str] = []

    def calls(self, work: Workload) -> dict[str, Callable[[], Any]]:
        """What runs each of them; a peer that can't be built or run is left out, and `failures` says why."""
        images = work.images()
        run = train_step if self.training else _inference
        if not self._built:
            self._build()
        calls: dict[str, Callable[[], Any]] = {
            name: functools.partial(run, prepare(net, work), images, work) for name, net in self._built.items()
        }
        self.failures += left_out(calls)
        self._built = {name: net for name, net in self._built.items() if name in calls}
        return calls

    def free(self) -> None:
        """Let go of them, and of the memory on the device."""
        self._built.clear()
        gc.unfreeze()
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def _build(self) -> None:
        def build(name: str, make: Callable[[], nn.Module]) -> None:
            self._built[name] = make().train(self.training)

        made = makers(self.network, training=self.training)
        self.failures += left_out({name: functools.partial(build, name, make) for name, make in made.items()})
        # Thousands of modules live from here on: collecting before each measurement would go through them all.
        gc.collect()
        gc.freeze()


def _inference(net: nn.Module, images: torch.Tensor, work: Workload) -> Any:
    with torch.no_grad(), work.casting():
        return maps_of(net, images)


def _rows(what: str, nets: _Nets, work: Workload, setting: Setting) -> Iterator[Row]:
    calls = nets.calls(work)
    times = in_rounds(calls, setting.rounds(15), 1 if setting.small else 3, device=setting.device)
    rows = []
    for row in _judged(what, nets, times):
        row.note = "; ".join(nets.failures)
        rows.append(row)
        yield row
    if nets.training and "no norms" in calls and (setting.small or setting.device == "cuda"):
        found = {name: kernels(call, setting.device) for name, call in calls.items()}
        seconds: dict[str, float | None] = {name: taken for name, (taken, _) in found.items()}
        named = ", ".join(f"{name} {count:.0f}" for name, (_, count) in found.items())
        note = f"launched in a step: {named}"
        for row in rows:
            if row.met is False:
                share = found["ours"][0] / (row.ours or 1)
                row.note = f"its kernels take {share:.0%} of our step: see the row of the kernels alone"
        yield compared(GROUP, f"{what}, kernels alone", seconds, against=["no norms"], rounds=3, note=note)


def kernels(call: Callable[[], Any], device: str) -> tuple[float, float]:
    """Seconds that the device works in one call, and how much is launched in it; the mean of three, by a profile.

    On a CPU, where only the script is tried, it is torch's operators that are counted.
    """
    cuda = device == "cuda"
    activity = torch.profiler.ProfilerActivity.CUDA if cuda else torch.profiler.ProfilerActivity.CPU
    kind = torch.autograd.DeviceType.CUDA if cuda else torch.autograd.DeviceType.CPU
    call()
    with torch.profiler.profile(activities=[activity]) as profile:
        for _ in range(3):
            call()
        if cuda:
            torch.cuda.synchronize()
    taken = [event.time_range.elapsed_us() for event in profile.events() if event.device_type == kind]
    if not taken:
        raise RuntimeError("the profiler saw nothing on the device")
    return sum(taken) / 3e6, len(taken) / 3


def _judged(what: str, nets: _Nets, times: Times) -> Iterator[Row]:
    peers = _chosen(times, *PEERS)
    if "no norms" not in times:
        target = {"at_least": OTHERS} if nets.training else {"at_most": EAGER}
        yield paired(GROUP, what, peers, against=[name for name in PEERS if times.get(name)], **target)
    elif nets.training:
        yield paired(GROUP, what, peers, against=["torchvision", "detectron2"], at_least=STEP)
        beside = _chosen(times, "no norms")
        yield paired(GROUP, f"{what}, against no norms", beside, against=["no norms"], at_most=NO_NORMS)
    else:
        yield paired(GROUP, what, peers, against=["torchvision", "detectron2"], at_most=EAGER)
        fused = _chosen(times, "no norms", ours="fused")
        yield paired(GROUP, f"{what}, fused", fused, against=["no norms"], at_most=FUSED)
        fused = _chosen(times, "torchvision", ours="fused")
        yield paired(GROUP, f"{what}, fused, against eager", fused, against=["torchvision"], at_least=FUSED_AGAIN)


def _chosen(times: Times, *peers: str, ours: str = "ours") -> dict[str, list[float]]:
    return {"ours": times[ours], **{name: times.get(name, []) for name in peers}}
