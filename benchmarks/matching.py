"""How fast names are matched: all of `plan_checkpoint`, from a file's names to the report, beside detectron2's way.

The names are a long ResNet's, in the file as a backbone has them and in the model behind "backbone.bottom_up.", as in a
detector. detectron2 compares each name with each, so it is measured at the smallest number only. Linear means that a
key takes at most three times as long among more keys than the processor's caches hold; where each is compared with
each, it takes 10 and 100 times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import Options, Row, attempt, in_rounds
from benchmarks.pairs import paired
from benchmarks.peers import detectron2_there
from detrex_backbones.checkpoint.files import Checkpoint
from detrex_backbones.checkpoint.match.plan import plan_checkpoint

GROUP = "matching"
FEW = 2_000
MANY = (20_000, 200_000)
LEAVES = ("weight", *(f"norm.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")))
CACHES = "the work for a key stays the same, but the keys are more than the caches of the processor hold"


def rows(options: Options) -> Iterator[Row]:
    yield attempt(GROUP, f"{FEW:,} keys", lambda: _beside(options))
    for count in MANY:
        yield attempt(GROUP, f"{count:,} keys: time per key", lambda: _linear(count, options))  # noqa: B023 (called at once)


def _beside(options: Options) -> Row:
    calls = {"ours": _ours(FEW)}
    if detectron2_there():
        calls["detectron2"] = _theirs(FEW)
    times = {"detectron2": [], **in_rounds(calls, options.rounds_or())}
    return paired(GROUP, f"{FEW:,} keys", times, against=["detectron2"], at_least=100)


def _linear(count: int, options: Options) -> Row:
    taken = in_rounds({"ours": _ours(count), "few": _ours(FEW)}, options.rounds_or())
    few = f"ours at {FEW:,}"
    times = {"ours": [t / count for t in taken["ours"]], few: [t / FEW for t in taken["few"]]}
    return paired(GROUP, f"{count:,} keys: time per key", times, against=[few], at_most=3, note=CACHES)


def _ours(count: int) -> Callable[[], Any]:
    file = _state("", count)
    shapes = {name: tuple(value.shape) for name, value in _state("backbone.bottom_up.", count).items()}
    checkpoint = Checkpoint(Path("weights.pth"), "torch", "", file)
    assert plan_checkpoint(shapes, checkpoint).report.coverage == 1
    return lambda: plan_checkpoint(shapes, checkpoint)


def _theirs(count: int) -> Callable[[], Any]:
    from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts

    file, model = _state("", count), _state("backbone.bottom_up.", count)
    assert len(align_and_update_state_dicts(model, file, c2_conversion=False)) == count
    return lambda: align_and_update_state_dicts(model, file, c2_conversion=False)


def _state(prefix: str, count: int) -> dict[str, Tensor]:
    return {prefix + name: torch.zeros(2) for name in names_of_a_long_resnet(count)}


def names_of_a_long_resnet(count: int) -> list[str]:
    """So many names of tensors of its fourth stage."""
    blocks = range(-(-count // (3 * len(LEAVES))))
    return [f"res4.{block}.conv{k}.{leaf}" for block in blocks for k in (1, 2, 3) for leaf in LEAVES][:count]
