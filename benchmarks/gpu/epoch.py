"""One epoch of the generated set: the training example as a process of its own, from its start to its figures."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu.jobs import Job, Setting
from benchmarks.measure import ROOT, Row, environment

GROUP = "epoch"
SCRIPT = "examples/train_detector"
IMAGES, BATCH = 400, 8
SMALL = [
    "data.prepare.train=8",
    "data.prepare.test=2",
    "data.prepare.size=64",
    "model.min_size=64",
    "model.max_size=64",
]


def jobs(setting: Setting) -> Iterator[Job]:
    """In float32 and in bfloat16, over the same scenes."""
    with tempfile.TemporaryDirectory() as folder:
        for amp in ("bf16",) if setting.small else ("", "bf16"):
            what = f"Faster R-CNN over R-18, {8 if setting.small else IMAGES} images, {amp or 'float32'}"
            yield Job(what, functools.partial(_rows, what, amp, Path(folder), setting), 30)


def _rows(what: str, amp: str, folder: Path, setting: Setting) -> Iterator[Row]:
    output = folder / (amp or "float32")
    overrides = [
        f"train.device={setting.device}",
        f"train.output={output}",
        f"train.amp={amp}",
        f"train.steps={2 if setting.small else IMAGES // BATCH}",
        f"data.folder={folder / 'scenes'}",
        f"data.total_batch_size={4 if setting.small else BATCH}",
        "schedule.warmup=1" if setting.small else "schedule.warmup=10",
        *(SMALL if setting.small else []),
    ]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, SCRIPT, *overrides],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=max(setting.left, 1),
    )
    taken = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"it ended with {done.returncode}: {done.stderr[-3000:]}")
    steps = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in steps if "loss" in entry]
    ended = f"loss {losses[0]:.3g} at the first step, {losses[-1]:.3g} at the last"
    yield Row(GROUP, what, "s", taken, note=f"start, scenes, steps and evaluation; {ended}", rounds=1)
