"""How long a network takes to build from its config, when a checkpoint will fill it and when not."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.measure import Options, Row, attempt, compared, in_turn
from benchmarks.peers import detectron2_there
from detrex_backbones.layers.init import skip_random_init

GROUP = "building"


def rows(options: Options) -> Iterator[Row]:
    """R-50 with frozen norms, from a config that is loaded already."""
    for what, filled, at_most in (("R-50, weights to follow", True, 0.1), ("R-50, at random weights", False, 1.0)):
        yield attempt(GROUP, what, functools.partial(_build, what, filled, at_most, options))


def _build(what: str, filled: bool, at_most: float, options: Options) -> Row:
    rounds = options.rounds_or(7)
    ours = _builder("detrex_backbones.config", "detrex_backbones")
    builders = {"ours": functools.partial(_without_init, ours) if filled else ours}
    if detectron2_there():
        builders["detectron2"] = _builder("detectron2.config", "detectron2.modeling.backbone")
    numbers: dict[str, float | None] = {"detectron2": None, **in_turn(builders, rounds)}
    return compared(GROUP, what, numbers, at_most=at_most, rounds=rounds)


def _without_init(build: Callable[[], Any]) -> Any:
    with skip_random_init():
        return build()


def _builder(configs: str, backbones: str) -> Callable[[], Any]:
    """A function that makes R-50 from a config of that library."""
    config, backbone = importlib.import_module(configs), importlib.import_module(backbones)
    call = config.LazyCall
    node = call(backbone.ResNet)(
        stem=call(backbone.BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=call(backbone.ResNet.make_default_stages)(depth=50, stride_in_1x1=False, norm="FrozenBN"),
        out_features=["res2", "res3", "res4", "res5"],
        freeze_at=1,
    )
    return lambda: config.instantiate(node)
