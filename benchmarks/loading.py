"""How fast a checkpoint gets into a model that is built, and how much memory that takes on the way.

The model is a ResNet-101 with frozen norms, the file holds its 170 MB in the names of the model, and is in the file
cache. What we do with it is all that `load_checkpoint` does: read, match names, check, copy, look for what is not
finite, report. The floor of a format is the least that a reader can do who knows all names and checks nothing:

- `.pth`: `torch.load(mmap=True, weights_only=True)`, and one `copy_` for each tensor;
- `.safetensors`: `safe_open`, which maps the file, and one `copy_` for each tensor;
- `.pkl`: the file is mapped, and one `copy_` for each tensor; where each one stands in it is known beforehand, as
  nobody else has a reader that maps pickles. Of the three floors only this one reads no names.

For a model on a GPU the floor is one copy for each tensor from pinned memory that holds them already. Memory is what a
process of its own takes at its peak beyond what it had before the load, the model included, without mapped files.
"""

from __future__ import annotations

import mmap
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import Options, Row, attempt, compared, in_turn, needs_gpu, peak_memory
from benchmarks.peers import detectron2_there
from detrex_backbones import load_checkpoint
from detrex_backbones.config import instantiate
from detrex_backbones.zoo import get_config

GROUP = "loading"
CONFIG = "resnet/resnet101.py"
FORMATS = ("pth", "safetensors", "pkl")
TO_GPU = "to the GPU"
BEYOND = (
    "beyond the floor are the checksums of a .pth, a second look at each tensor for what is not finite (a tenth of "
    "the floor), following a pickle before it runs, and matching, checks and report, as long for a small file; tried: "
    "checksums on all threads while names are read, looking at each tensor while it is in the cache"
)

BEFORE = """
import torch
from detrex_backbones import load_checkpoint
from detrex_backbones.config import instantiate
from detrex_backbones.zoo import get_config
model = instantiate(get_config({config!r}).model.backbone)
load_checkpoint(torch.nn.Linear(2, 2), {small!r})
"""


def rows(options: Options) -> Iterator[Row]:
    model = instantiate(get_config(CONFIG).model.backbone)
    with tempfile.TemporaryDirectory() as folder:
        write_files(nn.Linear(2, 2), Path(folder) / "small")
        write_files(model, Path(folder) / "weights")
        for kind in FORMATS:
            path = Path(folder) / f"weights.{kind}"
            for what, make in (
                (f"R-101 from .{kind}", _time),
                (f"R-101 from .{kind}, peak memory beside the file's size", _memory),
                (f"R-101 from .{kind}, {TO_GPU}", _to_gpu),
            ):
                yield attempt(GROUP, what, lambda: make(what, model, path, options))  # noqa: B023 (called at once)


def _time(what: str, model: nn.Module, path: Path, options: Options) -> Row:
    rounds = options.rounds_or(15)
    floor = FLOORS[path.suffix](path, model.state_dict())
    calls: dict[str, Callable[[], Any]] = {"ours": lambda: load_checkpoint(model, path), "floor": floor}
    if detectron2_there():
        calls["detectron2"] = theirs(model, path)
    numbers = {"detectron2": None, **in_turn(calls, rounds, 3)}
    row = compared(GROUP, what, numbers, against="floor", at_most=1.3, rounds=rounds)
    row.note = "" if row.met else BEYOND
    return row


def _memory(what: str, model: nn.Module, path: Path, options: Options) -> Row:
    before = BEFORE.format(config=CONFIG, small=str(path.with_stem("small")))
    peak = peak_memory(before, f"load_checkpoint(model, {str(path)!r})")
    numbers = {"ours": peak, "the file": path.stat().st_size / 2**20}
    return compared(GROUP, what, numbers, at_most=0.1, unit="MiB", rounds=1)


def _to_gpu(what: str, model: nn.Module, path: Path, options: Options) -> Row:
    if options.device != "cuda":
        return needs_gpu(GROUP, what, "at most 1.2 of a pinned copy")
    rounds = options.rounds_or(15)
    there = instantiate(get_config(CONFIG).model.backbone).to(options.device)
    targets = there.state_dict()
    pinned = {name: value.cpu().pin_memory() for name, value in model.state_dict().items()}
    calls = {"ours": lambda: load_checkpoint(there, path), "pinned copy": lambda: copy_all(targets, pinned)}
    numbers = in_turn(calls, rounds, 3, device=options.device)
    return compared(GROUP, what, numbers, at_most=1.2, rounds=rounds)


def write_files(model: nn.Module, path: Path) -> None:
    """As .pth, as .safetensors, and as detectron2's model zoo has it."""
    from safetensors.torch import save_file

    state = model.state_dict()
    torch.save(state, path.with_suffix(".pth"))
    save_file(state, path.with_suffix(".safetensors"))
    arrays = {name: value.numpy() for name, value in state.items()}
    path.with_suffix(".pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "benchmark"}, protocol=4))


def copy_all(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """One copy for each tensor."""
    for name, value in values.items():
        targets[name].copy_(value, non_blocking=True)


def _floor_pth(path: Path, targets: Mapping[str, Tensor]) -> Callable[[], Any]:
    return lambda: copy_all(targets, torch.load(path, mmap=True, weights_only=True))


def _floor_safetensors(path: Path, targets: Mapping[str, Tensor]) -> Callable[[], Any]:
    from safetensors import safe_open

    def call() -> None:
        with safe_open(path, "pt") as file:
            copy_all(targets, {name: file.get_tensor(name) for name in targets})

    return call


def _floor_pkl(path: Path, targets: Mapping[str, Tensor]) -> Callable[[], Any]:
    data = path.read_bytes()
    starts = {name: data.index(value.cpu().numpy().tobytes()) for name, value in targets.items()}

    def call() -> None:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        views = {
            name: torch.frombuffer(mapped, dtype=value.dtype, count=value.numel(), offset=starts[name]).view_as(value)
            for name, value in targets.items()
        }
        copy_all(targets, views)

    return call


FLOORS = {".pth": _floor_pth, ".safetensors": _floor_safetensors, ".pkl": _floor_pkl}


def theirs(model: nn.Module, path: Path) -> Callable[[], Any]:
    """detectron2's load of it."""
    from detectron2.checkpoint import DetectionCheckpointer

    return lambda: DetectionCheckpointer(model).load(str(path))
