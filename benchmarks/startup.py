"""What a user waits for before the first step: the import, and from the process' start to a model with its weights."""

from __future__ import annotations

import functools
import pickle
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.measure import Options, Row, attempt, in_processes
from benchmarks.pairs import above, paired
from benchmarks.peers import detectron2_there
from detrex_backbones import LazyConfig, instantiate

GROUP = "startup"
EXTRA = 0.15  # seconds that our import may take beyond torch's own

IMPORTS = {
    "ours": "from detrex_backbones import ResNet",
    "torch": "import torch",
    "torchvision": "import torchvision",
    "timm": "import timm",
    "detectron2": "from detectron2.modeling import ResNet",
}

# One network, written for both; the line that differs is the import.
CONFIG = """
{imports}
model = L(ResNet)(
    stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
    stages=L(ResNet.make_default_stages)(depth=101, stride_in_1x1=True, norm="FrozenBN"),
    out_features=["res2", "res3", "res4", "res5"],
)
train = dict(device="cpu", init_checkpoint="{weights}")
"""
OURS = """
from detrex_backbones import BasicStem, ResNet
from detrex_backbones.config import LazyCall as L
"""
DETECTRON2 = """
from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import BasicStem, ResNet
"""
START_OURS = """
from detrex_backbones import LazyConfig, build_model
model = build_model(LazyConfig.load({config!r}))
"""
START_DETECTRON2 = """
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, instantiate
cfg = LazyConfig.load({config!r})
model = instantiate(cfg.model)
DetectionCheckpointer(model).load(cfg.train.init_checkpoint)
"""
# Whoever didn't load doesn't count.
LOADED = "assert model.res5[2].conv3.weight.flatten()[0].item() == {first!r}, 'the weights were not loaded'\n"


def rows(options: Options) -> Iterator[Row]:
    """Import in a process of its own; the same without torch's part; start to a loaded R-101."""
    yield attempt(GROUP, "import", functools.partial(_import, "import", options))
    beyond = "import, beyond torch's own"
    yield attempt(GROUP, beyond, functools.partial(_import_beyond_torch, beyond, options))
    for kind in ("pth", "pkl"):
        what = f"process start to R-101 from .{kind}"
        yield attempt(GROUP, what, functools.partial(_start, what, kind, options))


def _import(what: str, options: Options) -> Row:
    times = {**{name: [] for name in IMPORTS}, **in_processes(_there(IMPORTS), options.rounds_or())}
    return above(paired(GROUP, what, times, against=["torch"]), times, "torch", EXTRA)


def _import_beyond_torch(what: str, options: Options) -> Row:
    """In one process after `import torch`, so that the difference of two long times doesn't hide it."""
    clock = "import torch, time; start = time.perf_counter()\n{}\nprint(time.perf_counter() - start)"
    programs = {name: clock.format(code) for name, code in _there(IMPORTS).items() if name != "torch"}
    times: dict[str, list[float]] = {name: [] for name in IMPORTS if name != "torch"}
    times |= in_processes(programs, options.rounds_or(), printed=True)
    row = paired(GROUP, what, times, against=[name for name in times if name != "ours"])
    row.target, row.ratio, row.spread = f"at most {EXTRA} s", None, []
    row.met = statistics.median(times["ours"]) <= EXTRA
    return row


def _start(what: str, kind: str, options: Options) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        times = {"detectron2": [], **in_processes(_there(_programs(Path(folder), kind)), options.rounds_or())}
    return paired(GROUP, what, times, against=["detectron2"], at_most=0.55)


def _programs(folder: Path, kind: str) -> dict[str, str]:
    """Configs and a weight file in `folder`, and the code that goes from there to a model."""
    weights, first = folder / f"R-101.{kind}", 0.5
    programs = {}
    for name, imports, code in (("ours", OURS, START_OURS), ("detectron2", DETECTRON2, START_DETECTRON2)):
        config = folder / f"{name}.py"
        config.write_text(CONFIG.format(imports=imports, weights=weights))
        programs[name] = code.format(config=str(config)) + LOADED.format(first=first)
    state = instantiate(LazyConfig.load(folder / "ours.py").model).state_dict()
    state["res5.2.conv3.weight"].flatten()[0] = first
    if kind == "pth":
        torch.save(state, weights)
    else:  # as in detectron2's zoo: numpy arrays, and who wrote it
        arrays = {name: tensor.numpy() for name, tensor in state.items()}
        weights.write_bytes(pickle.dumps({"model": arrays, "__author__": "benchmarks"}))
    return programs


def _there(programs: dict[str, str]) -> dict[str, str]:
    return {name: code for name, code in programs.items() if name != "detectron2" or detectron2_there()}
