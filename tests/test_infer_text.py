"""Python text of inferred configs and of to_py: it says what was meant, whatever words are in it."""

import ast
import itertools

import pytest
import torch
import torchvision

from detrex_backbones import LazyConfig
from detrex_backbones.config import LazyCall as L
from detrex_backbones.zoo import InferredResNet, infer_config

HOSTILE = [
    'a"""\nimport os\nos.mkdir("evil")\n"""',
    "a'''\nimport os\n'''",
    "a\\",
    'a\\"""; import os; """',
    "a\rimport os",
    "a\x0cimport os",
    "a\u2028import os",
    "a\u202eimport os",
    "a\x00b",
    "\ud800",
    "a" * 5000 + '"""\nimport os',
]
STAGES = {"depth": 18}


def statements(text):
    return [type(statement).__name__ for statement in ast.parse(text).body]


@pytest.mark.parametrize("words", HOSTILE)
def test_infer_writes_one_config_whatever_a_file_calls_itself(words):
    stem = ("BasicStem", {"in_channels": 3, "out_channels": 64})
    found = InferredResNet(source=words, prefix=words, stem=stem, stages=STAGES, num_classes=5, known=words)
    found.assumed = {"norm_eps": (1e-5, words)}
    found.preprocessing = {"pixel_mean": [1.0, 2.0, 3.0], "input_format": "BGR"}
    text = found.to_py(words)
    assert statements(text) == ["Expr", "ImportFrom", "ImportFrom", "Assign", "Assign"]
    assert text.isascii() or text.isprintable()
    train = ast.parse(text).body[-1].value
    assert ast.literal_eval(train.keywords[0].value) == words
    assert len([line for line in text.splitlines() if line.startswith("#")]) == 1


def test_infer_of_a_file_whose_prefix_ends_the_docstring(tmp_path):
    """The prefix and the name of the file, through the reader and all."""
    prefix = 'a"""\nimport os\nos.mkdir("evil")\n"""'
    state = torchvision.models.resnet18(weights=None).state_dict()
    path = tmp_path / 'net"""\nimport os\n""".pth'
    with path.open("wb") as file:  # the archive does not repeat the name then
        torch.save({f"{prefix}.{key}": value for key, value in state.items()}, file)
    text = infer_config(path).to_py(str(path))
    assert statements(text) == ["Expr", "ImportFrom", "ImportFrom", "Assign", "Assign"]
    (tmp_path / "config.py").write_text(text)
    assert LazyConfig.load(tmp_path / "config.py").train.init_checkpoint == str(path)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("words", HOSTILE)
def test_to_py_keeps_targets_keys_and_texts_apart_from_code(words):
    """A target that is no name is shown as the text that it is."""
    shown = LazyConfig.to_py({"_target_": words, words: words, "b": [words, (words,), {words: words}]})
    (statement,) = ast.parse(shown).body
    value = ast.literal_eval(statement.value)
    assert value == {"_target_": words, words: words, "b": [words, (words,), {words: words}]}
    for line in ast.parse(LazyConfig.to_py({words: {words: 1}, "c": L(itertools.count)(start=words)})).body:
        assert isinstance(line, ast.Assign)


class Odd:
    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return self.text


@pytest.mark.parametrize("shown", ["<odd>\nimport os", "1\nimport os", "x)\nimport os", "1; import os", "1 #"])
def test_an_object_is_shown_in_one_line(shown):
    text = LazyConfig.to_py({"a": Odd(shown), "b": 1})
    assert "\nimport os" not in text and len(text.splitlines()) == 2
