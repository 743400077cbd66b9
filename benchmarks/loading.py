"""How fast a checkpoint gets into a model that is built, and how much memory that takes on the way.

The model is a ResNet-101 with frozen norms, the file holds its 170 MB in the names of the model, and is in the file
cache. What we do with it is all that `load_checkpoint` does: read, match names, check, copy, look for what is not
finite, report. The floor of a format is the least that a reader can do who knows all names:

- `.pth`: `torch.load(mmap=True, weights_only=True)`, and one `copy_` for each tensor;
- `.safetensors`: `safe_open`, which maps the file, and one `copy_` for each tensor;
- `.pkl`: the file is mapped, and one `copy_` for each tensor; where each one stands in it is known beforehand, as
  nobody else has a reader that maps pickles. Of the three floors only this one reads no names.

The checked floor gives what we promise for the values, too: every byte of a `.pth` goes through zlib's checksum, on as
many threads as torch has, and every tensor is looked at for what is not finite.

For a model on a GPU the floor is one copy for each tensor from pinned memory that holds them already. Memory is what a
process of its own takes at its peak beyond what it had before the load, the model included, without mapped files.
"""

from __future__ import annotations

import functools
import mmap
import pickle
import statistics
import tempfile
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.matching import names_of_a_long_resnet
from benchmarks.measure import Options, Rounds, Row, attempt, compared, in_rounds, needs_gpu, peak_memory
from benchmarks.pairs import paired
from benchmarks.peers import detectron2_there
from detrex_backbones import load_checkpoint
from detrex_backbones.checkpoint import load as trip
from detrex_backbones.config import instantiate
from detrex_backbones.zoo import get_config

GROUP = "loading"
CONFIG = "resnet/resnet101.py"
FORMATS = ("pth", "safetensors", "pkl")
TO_GPU = "to the GPU"
OF_CHECKED = {"pth": 1.15, "safetensors": 1.15, "pkl": 1.3}  # of the checked floor's time
FASTER = 1.8  # times as fast as others read and load a .pth
MANY = (20_000, 200_000)  # keys
OF_TORCH = 0.5  # of the time of torch.load alone, for files of many small tensors
OF_PICKLE = 3.0  # of the time of pickle.load, for a pickle whose numbers are text (protocol 2)
PICKLES = "a pickle is followed instruction by instruction, in Python, before anything is made of it"
OPENING = "to find out what is where in the file"
STAGES = {  # function of `checkpoint/load.py` -> what it does; the rest of a load is opening the file
    "_check": "for names, matching and the checks before anything is written",
    "load_values": "for checksums or reading",
    "place_values": "to copy, and to look for what is not finite",
}

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
            yield from _time(f"R-101 from .{kind}", model, path, options)
            for what, make in (
                (f"R-101 from .{kind}, peak memory beside the file's size", _memory),
                (f"R-101 from .{kind}, {TO_GPU}", _to_gpu),
            ):
                yield attempt(GROUP, what, lambda: make(what, model, path, options))  # noqa: B023 (called at once)
        what = "R-101 from .pkl of protocol 2"
        yield attempt(GROUP, what, functools.partial(_text, what, model, Path(folder) / "text.pkl", options))
    for count in MANY:
        what = f"{count:,} keys, the whole load of a .pth"
        yield attempt(GROUP, what, functools.partial(_many, what, count, options.rounds_or(3)))


def _time(what: str, model: nn.Module, path: Path, options: Options) -> Iterator[Row]:
    """Beside the floors, with what each part takes; a .pth beside the others as well."""
    times: dict[str, list[float]] = {}

    def row() -> Row:
        times.update(_timed(model, path, options.rounds_or()))
        named = {name: times[name] for name in ("ours", "floor", "checked floor")}
        at_most = OF_CHECKED[path.suffix[1:]]
        found = paired(GROUP, what, named, against=["checked floor"], at_most=at_most)
        found.note = profile(lambda: load_checkpoint(model, path))
        return found

    yield attempt(GROUP, what, row)
    if times:
        others = {name: times[name] for name in ("ours", "detectron2", "torch.load")}
        at_least = FASTER if path.suffix == ".pth" else None
        beside = paired(
            GROUP, f"{what}, beside others", others, against=["detectron2", "torch.load"], at_least=at_least
        )
        if beside.met is False:
            there = [times[name] for name in ("floor", "detectron2", "torch.load") if times[name]]
            floor, *peers = (1000 * statistics.median(taken) for taken in there)
            beside.note = f"{FASTER} times as fast is {min(peers) / FASTER:.0f} ms; the floor takes {floor:.0f} ms"
        yield beside


def _timed(model: nn.Module, path: Path, rounds: Rounds) -> dict[str, list[float]]:
    targets = model.state_dict()
    floor = FLOORS[path.suffix](path, targets)
    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: load_checkpoint(model, path),
        "floor": floor,
        "checked floor": _checked(floor, path, targets),
    }
    if detectron2_there():
        calls["detectron2"] = theirs(model, path)
    if path.suffix == ".pth":
        calls["torch.load"] = lambda: model.load_state_dict(torch.load(path, weights_only=True))
    return {"detectron2": [], "torch.load": [], **in_rounds(calls, rounds, 3)}


def _checked(floor: Callable[[], Any], path: Path, targets: Mapping[str, Tensor]) -> Callable[[], Any]:
    """The floor, every byte of a .pth through a checksum, and a look at every tensor for what is not finite."""
    large = [value.view(-1) for value in targets.values() if value.is_floating_point() and value.numel() > 1]

    def call() -> None:
        if path.suffix == ".pth":
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                threads = torch.get_num_threads()
                share = -(-len(mapped) // threads)
                with memoryview(mapped) as view, ThreadPoolExecutor(threads) as pool:
                    shares = [view[at : at + share] for at in range(0, len(view), share)]
                    list(pool.map(zlib.crc32, shares))
                    for part in shares:
                        part.release()
        floor()
        assert torch.isfinite(torch.stack([torch.dot(value, value) for value in large])).all()

    return call


def profile(load: Callable[[], Any], rounds: int = 5) -> str:
    """Where the time of a load goes, in words: medians of each stage, by a clock around it."""
    taken: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        spent: dict[str, float] = defaultdict(float)
        with ExitStack() as stack:
            for name, words in STAGES.items():
                stack.enter_context(mock.patch.object(trip, name, _clocked(getattr(trip, name), words, spent)))
            begin = time.perf_counter()
            load()
            spent[OPENING] = time.perf_counter() - begin - sum(spent.values())
        for words, seconds in spent.items():
            taken[words].append(seconds)
    parts = {words: statistics.median(times) for words, times in taken.items()}
    whole = sum(parts.values())
    return ", ".join(f"{1000 * part:.0f} ms {words} ({part / whole:.0%})" for words, part in parts.items())


def _clocked(function: Callable[..., Any], words: str, spent: dict[str, float]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent[words] += time.perf_counter() - begin

    return call


def _text(what: str, model: nn.Module, path: Path, options: Options) -> Row:
    """A pickle of Python 3 in protocol 2, as it writes bytes: as text, with the call that encodes it again."""
    targets = model.state_dict()
    path.write_bytes(pickle.dumps({name: value.numpy() for name, value in targets.items()}, protocol=2))

    def plain() -> None:
        values = pickle.loads(path.read_bytes())
        copy_all(targets, {name: torch.from_numpy(value) for name, value in values.items()})

    times = in_rounds({"ours": lambda: load_checkpoint(model, path), "pickle.load": plain}, options.rounds_or())
    row = paired(GROUP, what, times, against=["pickle.load"], at_most=OF_PICKLE)
    row.note = "" if row.met else PICKLES
    return row


def _many(what: str, count: int, rounds: Rounds) -> Row:
    """A .pth of so many tensors of two numbers, beside what torch takes to read the file alone."""
    model = nn.Module()
    for name in names_of_a_long_resnet(count):
        module = model
        *path, leaf = name.split(".")
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_buffer(leaf, torch.zeros(2))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "many.pth"
        torch.save(model.state_dict(), file)
        calls: dict[str, Callable[[], Any]] = {
            "ours": lambda: load_checkpoint(model, file),
            "torch.load": lambda: torch.load(file, weights_only=True),
        }
        times = in_rounds(calls, rounds)
        parts = profile(calls["ours"], 1)
    row = paired(GROUP, what, times, against=["torch.load"], at_most=OF_TORCH)
    row.note = "" if row.met else f"{parts}. {PICKLES}: 30 instructions a tensor"
    return row


def _memory(what: str, model: nn.Module, path: Path, options: Options) -> Row:
    before = BEFORE.format(config=CONFIG, small=str(path.with_stem("small")))
    peak = peak_memory(before, f"load_checkpoint(model, {str(path)!r})")
    numbers = {"ours": peak, "the file": path.stat().st_size / 2**20}
    return compared(GROUP, what, numbers, at_most=0.1, unit="MiB", rounds=1)


def _to_gpu(what: str, model: nn.Module, path: Path, options: Options) -> Row:
    if options.device != "cuda":
        return needs_gpu(GROUP, what, "at most 1.2 of a pinned copy")
    there = instantiate(get_config(CONFIG).model.backbone).to(options.device)
    targets = there.state_dict()
    pinned = {name: value.cpu().pin_memory() for name, value in model.state_dict().items()}
    calls = {"ours": lambda: load_checkpoint(there, path), "pinned copy": lambda: copy_all(targets, pinned)}
    times = in_rounds(calls, options.rounds_or(), 3, device=options.device)
    return paired(GROUP, what, times, against=["pinned copy"], at_most=1.2)


def write_files(model: nn.Module, path: Path) -> None:
    """As .pth, as .safetensors, and as detectron2's model zoo has it."""
    from safetensors.torch import save_file

    # Copies: memory that numpy has a view of once is looked at in each load, lest it be read-only.
    state = {name: value.clone() for name, value in model.state_dict().items()}
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
