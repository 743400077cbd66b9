"""LazyConfig.to_py: point 30 of the contract."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import pytest
from omegaconf import OmegaConf

from detrex_backbones.config import LazyCall as L
from detrex_backbones.config import LazyConfig
from tests.config.config_targets import Model

CONTENT = {
    "lr": 0.1,
    "b": {"z": [1, "x"], "a": "${lr}", "with-dash": None, "class": True},
    "model": L(Model)(stem=L(itertools.count)(start=1), stages={"y": 2, "x": [L(Model)()]}, depth=int),
    "empty": {},
    "named": {"_target_": "some.where", "a b": 1},
    "twice": L(L(Model)(depth=1))(x=2),
    "text": "it's\n",
}
MODEL = "tests.config.config_targets.Model"
EXPECTED = f"""\
cfg.b.a = 0.1
cfg.b["class"] = True
cfg.b["with-dash"] = None
cfg.b.z = [1, "x"]
cfg.empty = {{}}
cfg.lr = 0.1
cfg.model = {MODEL}(depth=builtins.int, stages={{"x": [{MODEL}()], "y": 2}}, stem=itertools.count(start=1))
cfg.named = some.where(**{{"a b": 1}})
cfg.text = "it's\\n"
cfg.twice = {MODEL}(depth=1)(x=2)
"""


def config(content: Any) -> Any:
    return OmegaConf.create(content, flags={"allow_objects": True})


def test_30_plain_without_black(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "black", None)
    assert LazyConfig.to_py(config(CONTENT)) == EXPECTED


def test_30_formatted_with_black() -> None:
    black = pytest.importorskip("black", reason="black is not installed")
    assert LazyConfig.to_py(config(CONTENT)) == black.format_str(EXPECTED, mode=black.Mode())
    assert max(map(len, LazyConfig.to_py(config(CONTENT)).splitlines())) <= 88


def test_30_what_black_cannot_read_stays_plain() -> None:
    assert LazyConfig.to_py(config({"a": object})) == "cfg.a = builtins.object\n"
    assert LazyConfig.to_py(config({"a": iter(())})).startswith("cfg.a = <tuple_iterator object")


def test_30_prefix_and_whole_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "black", None)
    assert LazyConfig.to_py(config({"a": 1}), prefix="") == "a = 1\n"
    assert LazyConfig.to_py(config({"a": 1}), prefix="x.y.") == "x.y.a = 1\n"
    assert LazyConfig.to_py(L(itertools.count)(start=1)) == "cfg = itertools.count(start=1)\n"
    assert LazyConfig.to_py(config([1])) == "cfg = [1]\n"
    assert LazyConfig.to_py(config({"a": (1,)})) == "cfg.a = (1,)\n"
