"""Files of other formats: the error says what they are, and its line of Python makes a file of them that is read."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.errors import CheckpointFileError
from tests.checkpoint.nets import arrays, small_state

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.tensor([1.0, -2.0])}


def line_for(path) -> tuple[str, str]:
    """What the error says, and the line that it ends with."""
    with pytest.raises(CheckpointFileError) as caught:
        read_checkpoint(path)
    text, _, line = str(caught.value).partition(" Convert it first:\n    ")
    assert repr(str(path)) in text and "Is it whole?" not in text
    compile(line, "line", "exec")
    assert line.count("\n") == 0
    return text, line


def made_by(line, folder, monkeypatch, result="weights.npz"):
    """What stands in the file that the line makes."""
    monkeypatch.chdir(folder)
    exec(line, {})
    return read_checkpoint(folder / result).tensors


def assert_state(found, separator="."):
    assert {name.replace(separator, ".").removesuffix(":0") for name in found} == STATE.keys()
    for name, value in found.items():
        assert torch.equal(value, STATE[name.replace(separator, ".").removesuffix(":0")])


def saved(folder):
    torch.save(STATE, folder / "plain.pth")
    return folder / "plain.pth"


@pytest.mark.parametrize(("module", "word"), [(gzip, "gzip"), (bz2, "bzip2"), (lzma, "xz")])
@pytest.mark.parametrize("ending", [".gz", ".pth"])
def test_compressed_files(tmp_path, monkeypatch, module, word, ending):
    path = tmp_path / f'it\'s "one"{ending}'
    with module.open(path, "wb") as file:
        file.write(saved(tmp_path).read_bytes())
    text, line = line_for(path)
    assert f"is compressed by {word}." in text
    assert_state(made_by(line, tmp_path, monkeypatch, "weights"))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("ending", [".zip", ".pth", ".keras"])
def test_a_zip_around_a_checkpoint(tmp_path, monkeypatch, method, ending):
    path = tmp_path / f"weights{ending}"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.write(saved(tmp_path), "net/plain.pth")
        archive.writestr("net/readme.txt", "text")
    text, line = line_for(path)
    assert "is a zip archive that torch.save didn't write, of net/plain.pth, net/readme.txt" in text
    assert_state(made_by(line, tmp_path, monkeypatch, "weights/net/plain.pth"))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_around_a_checkpoint(tmp_path, monkeypatch, form):
    with tarfile.open(tmp_path / "weights.pth", "w", format=form) as archive:
        archive.add(saved(tmp_path), "plain.pth")
    text, line = line_for(tmp_path / "weights.pth")
    assert "is a tar archive." in text
    assert_state(made_by(line, tmp_path, monkeypatch, "weights/plain.pth"))


def test_arrays_of_numpy_that_are_compressed(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "w.npz", **arrays(STATE))
    text, line = line_for(tmp_path / "w.npz")
    assert "has compressed arrays" in text
    assert_state(made_by(line, tmp_path, monkeypatch))


@pytest.mark.parametrize("file", ["one.npy", "one.pth"])
def test_one_array_of_numpy(tmp_path, monkeypatch, file):
    with (tmp_path / file).open("wb") as opened:
        np.save(opened, np.ones((2, 3)))
    text, line = line_for(tmp_path / file)
    assert "has one array of shape (2, 3), and no name for it" in text
    found = made_by(line.replace("NAME", "conv.weight"), tmp_path, monkeypatch)
    assert found["conv.weight"].shape == (2, 3)


def test_a_dict_in_an_array_of_numpy(tmp_path, monkeypatch):
    np.save(tmp_path / "vgg.npy", arrays(STATE), allow_pickle=True)
    text, line = line_for(tmp_path / "vgg.npy")
    assert "has a pickled object" in text and "only where you trust it" in text
    assert_state(made_by(line, tmp_path, monkeypatch))


def test_arrays_by_their_names_are_read(tmp_path):
    np.savez(tmp_path / "w.npz", **arrays(STATE))
    (tmp_path / "w.npz").rename(tmp_path / "w.pth")
    assert_state(read_checkpoint(tmp_path / "w.pth").tensors)


@pytest.mark.parametrize("file", ["weights.h5", "weights.pth"])
def test_hdf5(tmp_path, monkeypatch, file):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / file, "w") as opened:
        for name, value in arrays(STATE).items():
            opened[name.replace(".", "/")] = value
    text, line = line_for(tmp_path / file)
    assert "is an HDF5 file, as Keras writes it." in text
    assert_state(made_by(line, tmp_path, monkeypatch), "/")


@pytest.mark.parametrize("more", [0, 20, 70_000])
def test_flax(tmp_path, monkeypatch, more):
    serialization = pytest.importorskip("flax.serialization")
    tree = {"conv": {"weight": arrays(STATE)["conv.weight"], "bias": arrays(STATE)["conv.bias"]}}
    (tmp_path / "w.msgpack").write_bytes(
        serialization.msgpack_serialize(tree | {f"step{number}": np.float32(number) for number in range(more)})
    )
    text, line = line_for(tmp_path / "w.msgpack")
    assert "is a file of msgpack, as Flax writes it." in text
    if not more:
        assert_state(made_by(line, tmp_path, monkeypatch))


@pytest.mark.parametrize("more", [{}, {"producer_name": "pytorch"}, {"doc_string": "a text"}, {"domain": "org"}])
def test_onnx(tmp_path, monkeypatch, more):
    onnx = pytest.importorskip("onnx")
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in arrays(STATE).items()]
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 3])
    node = onnx.helper.make_node("Identity", ["conv.weight"], ["y"])
    graph = onnx.helper.make_graph([node], "graph", [], [result], tensors)
    onnx.save(onnx.helper.make_model(graph, **more), tmp_path / "net.onnx")
    text, line = line_for(tmp_path / "net.onnx")
    assert "is an ONNX model." in text
    assert_state(made_by(line, tmp_path, monkeypatch))


@pytest.mark.parametrize("given", ["net.ckpt", "net.ckpt.index", "net.ckpt.data-00000-of-00001"])
def test_tensorflow(tmp_path, monkeypatch, given):
    tensorflow = pytest.importorskip("tensorflow")
    variables = {name: tensorflow.Variable(value, name=name) for name, value in arrays(STATE).items()}
    tensorflow.train.Checkpoint(**{name.replace(".", "_"): value for name, value in variables.items()}).write(
        str(tmp_path / "net.ckpt")
    )
    text, line = line_for(tmp_path / given)
    assert "is a part of a TensorFlow checkpoint." in text
    found = made_by(line, tmp_path, monkeypatch)
    named = {name.partition("/")[0].replace("_", "."): value for name, value in found.items() if "conv" in name}
    assert_state(named)


TABLE_END = bytes.fromhex("57fb808b247547db")
# What the libraries write, for where they aren't installed: content, and name of the file.
KINDS = {
    "is an HDF5 file": (b"\x89HDF\r\n\x1a\n" + bytes(100), "w.pth"),
    "is a file of msgpack": (b"\x82\xa6params\x81\xa4conv\x81\xa6kernel" + bytes(50), "w.pth"),
    "is an ONNX model": (b"\x08\x08\x12\x07pytorch\x1a\x052.0.0:" + bytes(50), "w.pth"),
    "is a part of a TensorFlow checkpoint": (bytes(100) + TABLE_END, "w.pth"),
    "is a part of a TensorFlow": (bytes(100), "w.ckpt.data-00000-of-00002"),
    "is a 7-Zip archive": (b"7z\xbc\xaf\x27\x1c" + bytes(100), "w.pth"),
}


@pytest.mark.parametrize("what", KINDS)
def test_kinds_by_their_content(tmp_path, what):
    content, name = KINDS[what]
    (tmp_path / name).write_bytes(content)
    text, line = line_for(tmp_path / name)
    assert what in text and "import" in line


def test_a_name_that_is_no_code(tmp_path):
    """Whatever a file is called, the line stays one literal."""
    path = tmp_path / "a'); import os; os.mkdir('evil'); ('.gz"
    path.write_bytes(gzip.compress(saved(tmp_path).read_bytes()))
    assert line_for(path)[1].count(repr(str(path))) == 1


def test_what_is_read_is_not_taken_for_another(tmp_path):
    torch.save(small_state(), tmp_path / "net.ckpt.data-00000-of-00001")
    assert read_checkpoint(tmp_path / "net.ckpt.data-00000-of-00001").tensors.keys() == small_state().keys()
