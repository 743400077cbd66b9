"""How fast configs load and instantiate: a deep chain of calls, and many calls side by side."""

from __future__ import annotations

import functools
import importlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import Options, Row, attempt, in_rounds
from benchmarks.pairs import paired
from benchmarks.peers import detectron2_there

GROUP = "configs"
LIBRARIES = {"ours": "detrex_backbones.config", "detectron2": "detectron2.config"}
LINEAR = 2.4  # times as long for twice as many
HEAD = """from {library} import LazyCall as L
def call(depth, inside=None):
    return depth, inside
"""
COPIED = (
    "a node is copied into the next, so that a later edit of it doesn't show there; copies of copies are quadratic, as "
    "they are in detectron2. At the depths that configs have, 3 to 12, the copies don't show"
)


def rows(options: Options) -> Iterator[Row]:
    """Load and instantiate beside detectron2, and how the time grows with the number of calls."""
    for source, count, words, at_most, why in SHAPES:
        what = f"{count:,}{words}"
        yield attempt(GROUP, what, functools.partial(_beside, what, source, count, at_most, options))
        grown = f"{what}, against half as many"
        yield attempt(GROUP, grown, functools.partial(_growth, grown, source, count, why, options))


def in_a_loop(count: int) -> str:
    """A chain that grows from the inside, as in a config that wraps what is there."""
    return f"node = L(call)(depth=0)\nfor i in range(1, {count}):\n    node = L(call)(depth=i, inside=node)\n"


def one_in_another(count: int) -> str:
    """The same chain in one expression, as networks are written."""
    text = "L(call)(depth=0)"
    for depth in range(1, count):
        text = f"L(call)(depth={depth}, inside={text})"
    return f"node = {text}\n"


def side_by_side(count: int) -> str:
    """One call with a list of many."""
    return f"node = L(call)(depth=0, inside=[L(call)(depth=i) for i in range({count})])\n"


SHAPES = (
    (in_a_loop, 100, "-deep chain, grown in a loop", 1 / 5, COPIED),
    (one_in_another, 100, "-deep chain, each call written in the next", 1 / 5, COPIED),
    (side_by_side, 2000, " calls side by side", None, ""),
)


def _beside(what: str, source: Callable[[int], str], count: int, at_most: float | None, options: Options) -> Row:
    there = [name for name in LIBRARIES if name == "ours" or detectron2_there()]
    with tempfile.TemporaryDirectory() as folder:
        calls = {name: _load_and_make(name, source(count), Path(folder)) for name in there}
        times = {"detectron2": [], **in_rounds(calls, options.rounds_or())}
    return paired(GROUP, what, times, against=["detectron2"], at_most=at_most)


def _growth(what: str, source: Callable[[int], str], count: int, why: str, options: Options) -> Row:
    """Linear is 2 or, with what any file costs, less; quadratic 4."""
    half = f"{count // 2:,}"
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"ours": count, half: count // 2}
        calls = {name: _load_and_make("ours", source(n), Path(folder), str(n)) for name, n in sizes.items()}
        times = in_rounds(calls, options.rounds_or())
    row = paired(GROUP, what, times, against=[half], at_most=LINEAR)
    row.note = "" if row.met else why
    return row


def _load_and_make(name: str, source: str, folder: Path, suffix: str = "") -> Callable[[], Any]:
    config = importlib.import_module(LIBRARIES[name])
    path = folder / f"{name}{suffix}.py"
    path.write_text(HEAD.format(library=LIBRARIES[name]) + source)
    return lambda: config.instantiate(config.LazyConfig.load(str(path)).node)
