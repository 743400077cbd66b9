"""Every kind of file gives the tensors that were written, whatever it is called and whatever else it holds."""

import argparse
import io
import pickle
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.checkpoint.read import Call
from tests.checkpoint.nets import arrays, assert_same_tensors, raw, small_state


def write_zip(content, path):
    torch.save(content, path)


def write_legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def write_pickle(content, path, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol=protocol))


def write_safetensors(content, path):
    save_file(content, path)


TORCH_WRITERS = {"torch": write_zip, "torch-legacy": write_legacy, "pickle": write_pickle}
WRITERS = {**TORCH_WRITERS, "safetensors": write_safetensors}


@pytest.mark.parametrize("extension", [".pth", ".pkl", ".safetensors", ".txt", ""])
@pytest.mark.parametrize("kind", WRITERS)
def test_the_reader_is_chosen_by_content_and_not_by_extension(tmp_path, kind, extension):
    path = tmp_path / f"weights{extension}"
    WRITERS[kind](small_state(), path)
    checkpoint = read_checkpoint(path)
    assert (checkpoint.format, checkpoint.container, checkpoint.extra) == (kind, "", {})
    if kind == "safetensors":  # it sorts what it holds
        assert_same_tensors(dict(sorted(checkpoint.tensors.items())), dict(sorted(small_state().items())))
    else:
        assert_same_tensors(checkpoint.tensors, small_state())


@pytest.mark.parametrize("container", ["", "model", "state_dict"])
@pytest.mark.parametrize("kind", TORCH_WRITERS)
def test_containers_and_what_stands_beside_the_weights(tmp_path, kind, container):
    path = tmp_path / "weights.pth"
    beside = {
        "iteration": 90000,
        "__author__": "torchvision",
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
    }
    TORCH_WRITERS[kind]({container: small_state(), **beside} if container else small_state(), path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.container == container
    assert checkpoint.extra == (beside if container else {})
    assert_same_tensors(checkpoint.tensors, small_state())


def test_a_mapping_without_tensors_called_model_is_not_taken_for_the_weights(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"model": {"depth": 50}, "state_dict": small_state()}, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.container == "state_dict"
    assert checkpoint.extra == {"model": {"depth": 50}}


def test_of_two_containers_model_comes_first(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": {"other": torch.ones(1)}, "model": small_state(), "top": torch.ones(1)}, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.container == "model"
    assert set(checkpoint.extra) == {"state_dict", "top"}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_arrays_of_every_protocol(tmp_path, protocol):
    path = tmp_path / "weights.pkl"
    write_pickle({"model": arrays(small_state()), "__author__": "torchvision"}, path, protocol)
    checkpoint = read_checkpoint(path)
    assert (checkpoint.format, checkpoint.extra) == ("pickle", {"__author__": "torchvision"})
    assert_same_tensors(checkpoint.tensors, small_state())


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_tensors_of_every_protocol(tmp_path, protocol):
    path = tmp_path / "weights.pkl"
    write_pickle({"state_dict": small_state()}, path, protocol)
    assert_same_tensors(read_checkpoint(path).tensors, small_state())


def python2_string(data: bytes) -> bytes:
    """Python 2's `str`, text and bytes alike: SHORT_BINSTRING or BINSTRING."""
    return b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<i", len(data)) + data


def python2_pickle(content: dict[str, np.ndarray]) -> bytes:
    """What Python 2's `cPickle.dump(content, file, protocol=2)` writes, opcode by opcode."""
    out = b"\x80\x02}("
    for key, array in content.items():
        out += python2_string(key.encode())
        out += b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + python2_string(b"b") + b"\x87R"
        out += b"(K\x01(" + b"".join(b"J" + struct.pack("<i", length) for length in array.shape) + b"t"
        out += b"cnumpy\ndtype\n" + python2_string(array.dtype.str[1:].encode()) + b"K\x00K\x01\x87R"
        out += b"(K\x03" + python2_string(b"<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        out += b"\x89" + python2_string(array.tobytes()) + b"tb"
    return out + b"u."


def test_a_pickle_written_by_python_2(tmp_path):
    path = tmp_path / "R-50.pkl"
    # Bytes above 127, which are no ASCII, and arrays above 255 bytes.
    path.write_bytes(python2_pickle(arrays(small_state())))
    assert pickle.loads(path.read_bytes(), encoding="latin1").keys() == small_state().keys()
    assert_same_tensors(read_checkpoint(path).tensors, small_state())


class RunState:
    """A class of the training run, which whoever reads the file doesn't have."""

    def __init__(self):
        self.log = [1.0, 2.0]


def test_weights_and_what_lies_beside_them_may_have_the_same_path(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"model": {"x": torch.ones(2), "t.x": torch.full((2,), 2.0)}, "t": {"x": torch.zeros(2)}}, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.tensors["x"].tolist() == [1, 1]
    assert checkpoint.tensors["t.x"].tolist() == [2, 2]
    assert checkpoint.extra["t"]["x"].tolist() == [0, 0]


class ListOfTheRun(list):
    """Pickled with its items appended, as mmengine's log buffers are."""


class DictOfTheRun(dict):
    """Pickled with its items set."""


@pytest.mark.parametrize("kind", TORCH_WRITERS)
def test_the_bookkeeping_of_a_training_run_is_inert_and_does_not_keep_the_weights_from_being_read(tmp_path, kind):
    path = tmp_path / "weights.pth"
    beside = {
        "args": argparse.Namespace(lr=0.1, nested=argparse.Namespace(x=1)),
        "state": RunState(),
        "list": ListOfTheRun([1, 2]),
        "dict": DictOfTheRun(a=1),
        "set": {RunState, "text"},
        "accuracy": np.float64(0.75),
        "path": tmp_path,
        "error": ValueError("text"),
    }
    TORCH_WRITERS[kind]({"model": small_state(), **beside}, path)
    checkpoint = read_checkpoint(path)
    assert_same_tensors(checkpoint.tensors, small_state())
    assert set(checkpoint.extra) == set(beside)
    assert checkpoint.extra["accuracy"] == 0.75
    for name in ("args", "state", "list", "dict", "path", "error"):
        assert type(checkpoint.extra[name]) is Call
    # They do nothing, and can be looked at.
    assert checkpoint.extra["args"].state["lr"] == 0.1
    assert checkpoint.extra["args"].state["nested"].state == {"x": 1}
    assert checkpoint.extra["list"].items == [1, 2]
    assert "Namespace" in repr(checkpoint.extra["args"])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_is_no_tensor_among_the_weights_is_left_out(tmp_path, protocol):
    path = tmp_path / "weights.pkl"
    odd = {"_metadata": {"version": 2}, "empty": b"", "name": "resnet", "config": argparse.Namespace(depth=50)}
    write_pickle({**arrays(small_state()), **odd}, path, protocol)
    assert_same_tensors(read_checkpoint(path).tensors, small_state())


ARRAYS = {
    "0-dim array": np.array(2.5, dtype="float32"),
    "numpy scalar": np.float32(2.5),
    "numpy integer": np.int64(7),
    "empty": np.zeros((0, 3), dtype="float32"),
    "big-endian": np.arange(6, dtype=">f4").reshape(2, 3),
    "big-endian 0-dim": np.array(2.5, dtype=">f8"),
    "big-endian integers": np.arange(3, dtype=">i8"),
    "Fortran order": np.asfortranarray(np.arange(6, dtype="float32").reshape(2, 3)),
    "reversed": np.arange(6, dtype="float32")[::-1],
    "half": np.arange(3, dtype="float16"),
    "bool": np.array([True, False]),
    "uint16": np.array([1, 65535], dtype="uint16"),
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_every_make(tmp_path, name, protocol):
    path = tmp_path / "weights.pkl"
    array = ARRAYS[name]
    write_pickle({"x": array, "other": np.ones(2)}, path, protocol)
    tensor = read_checkpoint(path).tensors["x"]
    native = np.asarray(array).astype(array.dtype.newbyteorder("="))
    assert tuple(tensor.shape) == array.shape
    assert tensor.numpy().dtype == native.dtype
    assert np.array_equal(tensor.numpy(), native)


def tensors_of_every_make():
    base = torch.arange(24, dtype=torch.float32)
    return {
        "0-dim": torch.tensor(2.5),
        "0-dim integer": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "bfloat16": base.bfloat16(),
        "float16": base.half(),
        "float64": base.double(),
        "bool": base > 3,
        "transposed": base.reshape(4, 6).t(),
        "every second": base[1::2],
        "expanded": base[:3, None].expand(3, 5),
        "channels last": base.reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
        "first half": base[:12],
        "second half": base[12:],
        "same again": base,
    }


@pytest.mark.parametrize("kind", TORCH_WRITERS)
def test_tensors_of_every_make_shared_storages_among_them(tmp_path, kind):
    path = tmp_path / "weights.pth"
    TORCH_WRITERS[kind](tensors_of_every_make(), path)
    assert_same_tensors(read_checkpoint(path).tensors, tensors_of_every_make())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_in_safetensors(tmp_path, dtype):
    path = tmp_path / "weights.safetensors"
    expected = {"x": torch.arange(5).to(dtype), "y": torch.tensor(2.5, dtype=dtype)}
    save_file(expected, path)
    assert_same_tensors(read_checkpoint(path).tensors, expected)


@pytest.mark.parametrize("kind", TORCH_WRITERS)
def test_parameters_are_tensors_too_without_their_gradients_and_attributes(tmp_path, kind):
    path = tmp_path / "weights.pth"
    plain, marked = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.full((2,), 2.0))
    marked.no_weight_decay = True
    TORCH_WRITERS[kind]({"plain": plain, "marked": marked}, path)
    tensors = read_checkpoint(path).tensors
    assert_same_tensors(tensors, {"plain": plain.detach(), "marked": marked.detach()})
    assert not any(tensor.requires_grad for tensor in tensors.values())


def test_a_zip_from_memory_with_a_folder_of_any_name(tmp_path):
    # Files that were renamed after they were written hold the old name inside.
    buffer = io.BytesIO()
    torch.save(small_state(), buffer)
    path = tmp_path / "renamed.bin"
    path.write_bytes(buffer.getvalue())
    assert_same_tensors(read_checkpoint(str(path)).tensors, small_state())


def test_reading_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(small_state(), path)
    before = path.read_bytes()
    tensors = read_checkpoint(path).tensors
    tensors["conv.weight"].zero_()
    assert path.read_bytes() == before
    assert raw(read_checkpoint(path).tensors["conv.weight"]) == raw(small_state()["conv.weight"])
