"""Peak memory of a training step, with and without `checkpoint_stages`."""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator

from benchmarks.gpu.jobs import Job, Setting
from benchmarks.measure import Row, compared
from benchmarks.memory import NETS, SAVING, on_cpu, on_gpu
from benchmarks.networks import NETWORKS
from benchmarks.peers import detectron2_there
from benchmarks.workloads import DETECTOR, Workload

GROUP = "memory"


def jobs(setting: Setting) -> Iterator[Job]:
    """Both ResNets, float32 as it comes and bfloat16 with channels last."""
    size = (64, 96) if setting.small else DETECTOR
    for network in NETWORKS[:1] if setting.small else NETWORKS:
        for low in (True,) if setting.small else (False, True):
            work = Workload(2, size, autocast=low, channels_last=low, device=setting.device)
            what = f"{network} step, {work}"
            yield Job(what, functools.partial(_rows, what, network, work))


def _rows(what: str, network: str, work: Workload) -> Iterator[Row]:
    measure = on_gpu if work.device == "cuda" else on_cpu
    peaks: dict[str, float | None] = {}
    for name in NETS:
        gc.collect()
        peaks[name] = measure(name, network, work) if name != "detectron2" or detectron2_there() else None
    named = {name: peaks[name] for name in ("ours", "torchvision", "detectron2")}
    yield compared(GROUP, what, named, against="detectron2", at_most=1.0, unit="MiB", rounds=1)
    saving = {"ours": peaks["checkpoint_stages"], "without": peaks["ours"], "detectron2": peaks["detectron2"]}
    what = f"{what}, with checkpoint_stages"
    yield compared(GROUP, what, saving, against="detectron2", at_most=SAVING, unit="MiB", rounds=1)
