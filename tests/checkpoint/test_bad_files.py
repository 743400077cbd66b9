"""Files that are no checkpoint, or no longer one: an error of ours that names the file and says what to do."""

import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from detrex_backbones import load_checkpoint
from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.errors import CheckpointError, CheckpointFileError
from tests.checkpoint.nets import arrays, empty, small_state, snapshot
from tests.checkpoint.test_reading import WRITERS, assert_same_tensors, write_pickle


def fails(path) -> str:
    """The error's text; it names the path, and says what to do."""
    with pytest.raises(CheckpointFileError) as caught:
        read_checkpoint(path)
    assert isinstance(caught.value, CheckpointError) and isinstance(caught.value, OSError)
    text = str(caught.value)
    assert str(path) in text
    return text


@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("kind", WRITERS)
def test_cut_files(tmp_path, kind, part):
    whole, path = tmp_path / "whole", tmp_path / "cut.pth"
    WRITERS[kind]({"a.weight": torch.ones(300), "b.weight": torch.ones(20, 30), "c.weight": torch.ones(7)}, whole)
    data = whole.read_bytes()
    path.write_bytes(data[: max(1, int(part * len(data)))])
    text = fails(path)
    assert "Is it whole? Compare its size and hash" in text or "is no checkpoint" in text


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_cut_by_one_byte(tmp_path, kind):
    whole, path = tmp_path / "whole", tmp_path / "cut.pth"
    WRITERS[kind](small_state(), whole)
    path.write_bytes(whole.read_bytes()[:-1])
    assert "Is it whole?" in fails(path)


def test_an_empty_file(tmp_path):
    path = tmp_path / "empty.pth"
    path.touch()
    assert "is empty (0 bytes). Fetch it again." in fails(path)


def test_a_missing_file(tmp_path):
    text = fails(tmp_path / "missing.pth")
    assert "does not exist. Give the path of a torch file" in text
    assert ".safetensors" in text


def test_a_name_that_no_file_can_have(tmp_path):
    assert "Give the path of a torch file" in fails(tmp_path / ("x" * 300))


def test_a_file_that_must_not_be_read(tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    torch.save(small_state(), path)

    def refuse(self, *args, **kwargs):  # root may read everything, so no file mode shows this
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert "Permission denied" in fails(path)


def test_a_folder(tmp_path):
    assert "is a folder. Give the path of a torch file" in fails(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["<!DOCTYPE html>\n<html>404</html>", "x", "(not a pickle)", "}"],
)
def test_a_text_file(tmp_path, text):
    path = tmp_path / "weights.pth"
    path.write_text(text)
    assert "is no checkpoint: it starts with" in (found := fails(path)) or "can't be read as pickle" in found


def test_a_pointer_of_git_lfs(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")
    assert "is a pointer of Git LFS" in (text := fails(path))
    assert "git lfs pull" in text


def test_a_json_file(tmp_path):
    path = tmp_path / "weights.json"
    path.write_text(json.dumps({"conv.weight": [[1.0, 2.0]], "conv.bias": [3.0]}))
    assert "is no checkpoint: it starts with" in fails(path)


def test_a_picture(tmp_path):
    path = tmp_path / "photo.pth"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    assert "is no checkpoint: it starts with" in fails(path)


def test_a_zip_that_torch_did_not_write(tmp_path):
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/readme.txt", "no weights here")
    assert "can't be read as torch" in fails(path)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_torchscript_archive(tmp_path):
    path = tmp_path / "model.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    text = fails(path)
    assert "it is a TorchScript program" in text
    assert "torch.save(torch.jit.load('file.pt').state_dict(), 'weights.pth')" in text


@pytest.mark.parametrize("content", [[1, 2], "text", 3, None, small_state()["conv.bias"]])
def test_no_mapping(tmp_path, content):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    assert f"holds a {type(content).__name__}. Expected a mapping of names to tensors" in fails(path)


def test_a_whole_pickled_module(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    assert "holds a Linear. Expected a mapping of names to tensors" in fails(path)


def test_no_tensors(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"iteration": 3, "model": {"depth": 50}, "args": {}}, path)
    text = fails(path)
    assert "holds no tensors in any place that trainers put them" in text
    assert "It has: 'iteration': int, 'model': dict, 'args': dict." in text
    torch.save({}, path)
    assert "It has: nothing." in fails(path)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_of_python_objects(tmp_path, protocol):
    path = tmp_path / "weights.pkl"
    for odd in (np.array([{"a": 1}, None], dtype=object), np.zeros(2, dtype=[("a", "f4"), ("b", "O")])):
        write_pickle({**arrays(small_state()), "odd": odd}, path, protocol)
        checkpoint = read_checkpoint(path)
        assert_same_tensors(checkpoint.tensors, small_state())
        assert "array" in checkpoint.unread["odd"]


@pytest.mark.skipif(np.dtype("longdouble") == np.dtype("float64"), reason="numpy has no longer floats here")
def test_arrays_of_a_dtype_that_torch_does_not_have(tmp_path):
    path = tmp_path / "weights.pkl"
    write_pickle({**arrays(small_state()), "long": np.zeros(2, dtype="longdouble")}, path)
    checkpoint = read_checkpoint(path)
    assert_same_tensors(checkpoint.tensors, small_state())
    assert checkpoint.unread == {"long": "an array of f16, which torch doesn't have"}


def test_a_flipped_byte_in_the_middle_of_a_pickle(tmp_path):
    path = tmp_path / "weights.pkl"
    data = bytearray(pickle.dumps(arrays(small_state()), protocol=2))
    data[data.index(b"numpy")] ^= 0xFF
    path.write_bytes(bytes(data))
    assert "can't be read as pickle" in fails(path)


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "folder", "cut"])
def test_a_bad_file_leaves_the_model_as_it_was(tmp_path, damage):
    path = tmp_path / "weights.pth"
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        torch.save(small_state(), path)
        path.write_bytes({"empty": b"", "text": b"text", "cut": path.read_bytes()[:900]}[damage])
    model = empty()
    before = snapshot(model)
    with pytest.raises(CheckpointFileError):
        load_checkpoint(model, path)
    assert snapshot(model) == before
