"""Files of networks, as names and shapes, and faults of one: stages lost, renamed, exchanged, of another size."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from detrex_backbones.checkpoint.files import Checkpoint
from detrex_backbones.checkpoint.match.model_facts import ModelFacts
from detrex_backbones.checkpoint.match.plan import plan_checkpoint
from detrex_backbones.checkpoint.match.refusals import check_report
from detrex_backbones.checkpoint.report import LoadReport

Shapes = dict[str, tuple[int, ...]]

# How projects number the stages of a network, from its first.
STYLES: tuple[Callable[[int], str], ...] = (
    lambda n: f"layer{n + 1}",
    lambda n: f"stage{n + 1}",
    lambda n: f"stages.{n}",
    lambda n: f"res{n + 2}",
    lambda n: f"blocks.{n}",
    lambda n: f"layers_{n}",
    lambda n: f"features.{n}",
)
# "layer4", "stages.3", "res5", "_blocks.7", "stages_2", "res4_0" as the beginning of a name, or behind a module.
STAGE = re.compile(r"^((?:[a-z]\w*\.)*?)(_?[a-z][a-z_]*?[._]?)(\d+)(?=[._])")
HEADS = re.compile(r"incre_modules|downsamp_modules|stem|head")
COUNTERS = re.compile(r"num_batches_tracked$|relative_position_index$")


def shapes_of(net: nn.Module) -> Shapes:
    """Name -> shape of each floating-point tensor."""
    return {key: tuple(value.shape) for key, value in net.state_dict().items() if not COUNTERS.search(key)}


def try_load(model: nn.Module, file: Mapping[str, tuple[int, ...]]) -> LoadReport:
    """The report of what a load would do, or its error."""
    return loaded_as(model, file)[0]


def loaded_as(model: nn.Module, file: Mapping[str, tuple[int, ...]]) -> tuple[LoadReport, dict[str, int | str]]:
    """The report, and which tensor of the file, by its place in it or a name that was made, each of the model has.

    Each tensor is a number of its own, spread without memory.
    """
    tensors = {key: torch.tensor(float(at)).expand(shape) for at, (key, shape) in enumerate(file.items())}
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    checkpoint = Checkpoint(Path("weights.pth"), "torch", "", tensors)
    report = plan_checkpoint(wanted, checkpoint, facts=ModelFacts(model)).report
    check_report(report)
    place = {key: at for at, key in enumerate(file)}
    return report, {item.model_key: place.get(item.checkpoint_key, item.checkpoint_key) for item in report.loaded}


def stages_of(file: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The beginning of each stage's names ("layer4", "stages.3") -> its number, of the longest row of them."""
    found = [match for key in file if not HEADS.match(key) and (match := STAGE.match(key))]
    rows = Counter(match[1] + match[2] for match in found)
    row = max(rows, key=lambda head: (len({match[3] for match in found if match[1] + match[2] == head}), rows[head]))
    return {match[0]: int(match[3]) for match in found if match[1] + match[2] == row}


def wrong_files(file: Shapes, draw: random.Random, styles: int = 3) -> Iterator[tuple[str, Shapes]]:
    """What was done to a file, and the file: one of each kind, at places that are drawn, with so many of the styles."""
    stages = stages_of(file)
    names = sorted(stages, key=lambda name: stages[name])
    lost = draw.choice(names)
    yield f"without {lost}", {key: shape for key, shape in file.items() if not _of(key, lost)}
    last = names[-1]
    yield f"{last} alone", {key: shape for key, shape in file.items() if _of(key, last)}
    one, other = draw.sample(names, 2) if len(names) > 1 else (lost, lost)
    yield f"{one} and {other} exchanged", _renamed(file, {one: other, other: one})
    yield "each stage under the next one's name", _renamed(file, dict(zip(names, names[1:] + names[:1], strict=True)))
    kept = draw.sample(names, max(1, len(names) // 2))
    left = {name for name in names if name not in kept}
    yield f"without {left}", {key: shape for key, shape in file.items() if not any(_of(key, name) for name in left)}
    for style in draw.sample(STYLES, styles):
        renamed = {name: style(stages[name] - min(stages.values())) for name in names}
        everywhere = _renamed(file, renamed)
        yield f"all stages renamed, as {renamed[last]}", everywhere
        yield f"{lost} renamed {renamed[lost]}", _renamed(file, {lost: renamed[lost]})
        some = {key: shape for key, shape in everywhere.items() if any(_of(key, renamed[name]) for name in kept)}
        yield f"{kept} alone, as {renamed[last]}", some
    gone = draw.choice([key for key in file if any(_of(key, name) for name in names)])
    yield f"without {gone}", {key: shape for key, shape in file.items() if key != gone}
    yield from _sizes(file, names, draw)


def _sizes(file: Shapes, names: list[str], draw: random.Random) -> Iterator[tuple[str, Shapes]]:
    inside = draw.choice(names)
    block = re.compile(rf"^({re.escape(inside)}[._](?:[a-z]\w*?[._])?)(\d+)(?=[._])")
    numbers = [int(match[2]) for key in file if (match := block.match(key))]
    if numbers:
        deeper = dict(file)
        for key, shape in file.items():
            match = block.match(key)
            if match and int(match[2]) == max(numbers):
                deeper[f"{match[1]}{int(match[2]) + 1}{key[match.end() :]}"] = shape
        yield f"one more block in {inside}", deeper
        found = ((key, block.match(key)) for key in file)
        last = {key for key, match in found if match and int(match[2]) == max(numbers)}
        yield f"one block less in {inside}", {key: shape for key, shape in file.items() if key not in last}
    widened = {key: tuple(2 * n if n > 4 else n for n in shape) for key, shape in file.items() if _of(key, inside)}
    yield f"{inside} wider", {**file, **widened}
    part = next((key for key in sorted(file, key=lambda key: draw.random()) if _of(key, inside)), "")
    yield f"a part more beside {part}", {**file, f"{part.rpartition('.')[0] or part}.extra.gamma": (8,)}


def _of(key: str, stage: str) -> bool:
    return key.startswith((f"{stage}.", f"{stage}_"))


def _renamed(file: Shapes, names: Mapping[str, str]) -> Shapes:
    renamed = {}
    for key, shape in file.items():
        stage = next((stage for stage in names if _of(key, stage)), None)
        renamed[key if stage is None else names[stage] + key[len(stage) :]] = shape
    return renamed
