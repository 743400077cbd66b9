"""LazyConfig.to_py: point 30 of docs/reference/config.md."""

from __future__ import annotations

import ast
import enum
import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from detrex_backbones.config import LazyCall as L
from detrex_backbones.config import LazyConfig
from detrex_backbones.errors import ConfigValueError
from tests.config.config_targets import Model


class Colour(enum.Enum):
    RED = 1


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
cfg.text = "it's\\u000a"
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


def test_30_what_has_no_text_in_python_is_a_string_of_its_repr() -> None:
    assert LazyConfig.to_py(config({"a": object})) == "cfg.a = builtins.object\n"
    assert LazyConfig.to_py(config({"a": iter(())})).startswith('cfg.a = "<tuple_iterator object')


def test_30_prefix_and_whole_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "black", None)
    assert LazyConfig.to_py(config({"a": 1}), prefix="") == "a = 1\n"
    assert LazyConfig.to_py(config({"a": 1}), prefix="x.y.") == "x.y.a = 1\n"
    assert LazyConfig.to_py(L(itertools.count)(start=1)) == "cfg = itertools.count(start=1)\n"
    assert LazyConfig.to_py(config([1])) == "cfg = [1]\n"
    assert LazyConfig.to_py(config({"a": (1,)})) == "cfg.a = (1,)\n"


EVIL = [
    'x"); import os; os.mkdir("made") #',
    "x'); import os #",
    "\n import os",
    "\\",
    'a\\"b',
    "os.mkdir('made') or x",
    "x\r\nimport os",
    "\u2028import os",
    "\ud800",
    "\x00",
    "${oc.env:HOME}".replace("$", "\\$"),
    "lambda: 0",
    "__debug__",
    "class",
    "fi\ufb01",
    "*",
    "",
]


@pytest.mark.parametrize("words", EVIL)
def test_30_words_of_a_stranger_are_never_code(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a string, a key, a target's name and a key of a call: the text means the config and nothing else."""
    monkeypatch.setitem(sys.modules, "black", None)
    content = {
        "value": words,
        words: {words: [words, (words,)], "y": b"'"},
        "call": {"_target_": "some.where", words: words, "inside": {words: words}},
        "named": {"_target_": words, "x": {"_target_": {"_target_": words}}},
    }
    for prefix in ("cfg.", ""):
        tree = ast.parse(LazyConfig.to_py(config(content), prefix=prefix))
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert calls <= {"some.where", "vars"}
        assert {type(statement) for statement in tree.body} == {ast.Assign}
        held = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        assert words in held or words.startswith("\\$")


def test_30_text_that_does_not_mean_the_config_is_never_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detrex_backbones.config.to_py.written_leaf", lambda value: "os.mkdir('made')")
    with pytest.raises(ConfigValueError, match="can't be written as Python with the same meaning"):
        LazyConfig.to_py(config({"a": "text"}))


@pytest.mark.parametrize("prefix", ["cfg", "a b.", "import os; cfg.", "f().", "class.", "."])
def test_30_a_prefix_is_dotted_words(prefix: str) -> None:
    with pytest.raises(ConfigValueError, match="prefix is dotted words and a dot"):
        LazyConfig.to_py(config({"a": 1}), prefix=prefix)


def test_30_values_that_python_has_no_literal_for() -> None:
    content = {
        "a": float("inf"),
        "b": float("-inf"),
        "c": Path("x y"),
        "d": -1,
        "e": b"x",
        "f": Colour.RED,
        "g": (),
    }
    text = LazyConfig.to_py(config(content), prefix="")
    assert text.replace("b'x'", 'b"x"') == (
        'a = float("inf")\nb = float("-inf")\nc = pathlib.Path("x y")\nd = -1\ne = b"x"\n'
        "f = tests.config.test_to_py.Colour.RED\ng = ()\n"
    )
    assert LazyConfig.to_py(3, prefix="") == "3\n"
