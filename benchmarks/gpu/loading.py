"""A checkpoint into a model on the device, beside a copy from pinned memory that holds its tensors already."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.gpu.jobs import Job, Setting, left_out
from benchmarks.loading import FLOORS, FORMATS, copy_all, theirs, write_files
from benchmarks.measure import Row, in_rounds
from benchmarks.pairs import paired
from benchmarks.peers import detectron2_there
from detrex_backbones import load_checkpoint
from detrex_backbones.config import instantiate
from detrex_backbones.zoo import get_config

GROUP = "loading"
AT_MOST = 1.2  # of the pinned copy
BEYOND = (
    "the file is read from the file cache and checked, which the pinned copy has behind it; 'mapped' is the mapped "
    "file copied to the device without a check"
)


def jobs(setting: Setting) -> Iterator[Job]:
    """One for each format."""
    config = "resnet/resnet18.py" if setting.small else "resnet/resnet101.py"
    model: nn.Module = instantiate(get_config(config).model.backbone)
    net = "R-18" if setting.small else "R-101"
    with tempfile.TemporaryDirectory() as folder:
        write_files(model, Path(folder) / "weights")
        there = model.to(setting.device)
        for kind in FORMATS:
            what = f"{net} from .{kind}, to the device"
            path = Path(folder) / f"weights.{kind}"
            yield Job(what, lambda what=what, path=path: _rows(what, there, path, setting))  # type: ignore[misc]


def _rows(what: str, model: nn.Module, path: Path, setting: Setting) -> Iterator[Row]:
    targets = model.state_dict()
    values = {name: value.cpu().clone() for name, value in targets.items()}
    if setting.device == "cuda":
        values = {name: value.pin_memory() for name, value in values.items()}
    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: load_checkpoint(model, path),
        "pinned copy": lambda: copy_all(targets, values),
        "mapped": FLOORS[path.suffix](path, targets),
    }
    if path.suffix == ".pth":
        calls["torch.load"] = lambda: model.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    if detectron2_there():
        calls["detectron2"] = theirs(model, path)
    failures = left_out(calls)
    times = in_rounds(calls, setting.rounds(15), 2, device=setting.device)
    row = paired(GROUP, what, times, against=["pinned copy"], at_most=AT_MOST)
    row.note = "; ".join([*failures, *([] if row.met else [BEYOND])])
    yield row
