"""The door of the reader: what stands behind it, and what doesn't."""

import ast
import os
import re
import sys
from pathlib import Path

import pytest
import torch

import detrex_backbones
from detrex_backbones.checkpoint import read
from detrex_backbones.checkpoint.files import load_values, open_checkpoint, read_checkpoint
from detrex_backbones.checkpoint.read import source
from detrex_backbones.checkpoint.read.source import open_source
from detrex_backbones.errors import CheckpointFileError
from tests.checkpoint.nets import assert_same_tensors, save, small_state
from tests.checkpoint.test_reading import WRITERS

PACKAGE = Path(detrex_backbones.__file__).parent
PARSERS = {"pickle", "zipfile", "marshal", "shelve", "ast", "importlib", "safetensors", "tarfile", "subprocess"}


def imported(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


MESSAGES = PACKAGE / "checkpoint" / "place" / "ranks.py"  # of the processes of one run to each other: of no file


def called(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def test_no_other_parser_is_there():
    """Neither in the reader, nor anywhere else in the package where a stranger's file is loaded."""
    files = sorted(Path(read.__file__).parent.glob("*.py"))
    assert len(files) > 10
    for path in files:
        assert not PARSERS & set(imported(path)), path
        names = set(called(path))
        assert not names & {"eval", "exec", "compile", "__import__", "setattr", "globals", "open_code"}, path
        assert not {name for name in names if re.search(r"\b(torch|np|numpy)\.(load|jit|fromfile|memmap)\b", name)}, (
            path
        )
    for path in PACKAGE.rglob("*.py"):
        names = set(called(path)) - ({"pickle.loads"} if path == MESSAGES else set())
        assert not {"torch.load", "pickle.load", "pickle.loads", "pickle.Unpickler", "numpy.load", "np.load"} & names, (
            path
        )
        assert "zipfile" not in set(imported(path)), path


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointFileError, match="is no ordinary file"):
        read_checkpoint(tmp_path / "pipe")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="the system has no such device")
def test_a_device_is_refused():
    with pytest.raises(CheckpointFileError, match="is no ordinary file"):
        read_checkpoint("/dev/zero")


@pytest.mark.parametrize("kind", ["torch", "safetensors", "pickle"])
def test_a_file_that_becomes_shorter_while_it_is_read(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(source, "fcntl", None)  # no lease: others can write
    path = tmp_path / "weights"
    WRITERS[kind]({"x": torch.ones(5000), "y": torch.ones(5000)}, path)
    with open_checkpoint(path) as found:
        with path.open("r+b") as opened:
            opened.truncate(500)
        if kind == "pickle":  # all of it was read when it was opened
            assert_same_tensors(load_values(found, found.tensors), {"x": torch.ones(5000), "y": torch.ones(5000)})
        else:
            with pytest.raises(CheckpointFileError, match="the file ends at byte"):
                load_values(found, found.tensors)


def test_a_tensor_is_loaded_while_its_file_is_open(tmp_path):
    path = save(tmp_path, small_state())
    with open_checkpoint(path) as found:
        assert torch.equal(found.tensors["conv.bias"].load(), small_state()["conv.bias"])
    assert_same_tensors(read_checkpoint(path).tensors, small_state())


@pytest.mark.skipif(sys.platform != "linux", reason="leases are Linux's")
def test_a_file_that_somebody_writes_to_is_read_without_a_map(tmp_path):
    path = save(tmp_path, small_state())
    with path.open("r+b"), open_source(path) as opened:
        assert opened.memory is None
    assert_same_tensors(read_checkpoint(path).tensors, small_state())
