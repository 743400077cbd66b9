"""Large arrays of a pickle are views of the mapped file, and nothing else about them is different."""

import argparse
import mmap
import pickle

import numpy as np
import pytest
import torch

from detrex_backbones import load_checkpoint
from detrex_backbones.checkpoint import mapped_pickle
from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.errors import CheckpointFileError
from tests.checkpoint.nets import arrays, assert_same_tensors
from tests.checkpoint.test_reading import python2_pickle
from tests.reference import noise

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch):
    """All that isn't shorter than 256 bytes stays in the file; below that, pickle has instructions of its own."""
    monkeypatch.setattr(mapped_pickle, "LARGE", 256)


def written(tmp_path, content, protocol=4):
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def stands_on(array):
    """The object whose memory an array is a view of."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array.obj if isinstance(array, memoryview) else array


ARRAYS = {
    "float32": np.arange(300, dtype="float32").reshape(3, 4, 25),
    "half": np.arange(300, dtype="float16"),
    "float64": np.arange(300, dtype="float64"),
    "int64": np.arange(300),
    "bool": np.arange(300) % 3 == 0,
    "uint8": np.arange(300, dtype="uint8").reshape(30, 10),
    "big-endian": np.arange(300, dtype=">f4").reshape(20, 15),
    "Fortran order": np.asfortranarray(np.arange(300, dtype="float32").reshape(20, 15)),
    "reversed": np.arange(300, dtype="float32")[::-1],
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_every_make_and_protocol(tmp_path, name, protocol):
    array = ARRAYS[name]
    found = mapped_pickle.load(written(tmp_path, {"x": array, "short": np.ones(2)}, protocol))
    assert type(found["x"]) is np.ndarray
    assert found["x"].dtype.newbyteorder("=") == array.dtype.newbyteorder("=") and found["x"].shape == array.shape
    assert np.array_equal(found["x"], array) and np.array_equal(found["short"], np.ones(2))
    if protocol >= 3:  # before, bytes are written as text of another encoding
        assert isinstance(stands_on(found["x"]), mmap.mmap)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_shifted_in_the_file_they_load_into_models_of_any_precision(tmp_path, protocol):
    state = {"weight": noise(30, 10), "bias": noise(30)}
    for dtype in (torch.float32, torch.float16, torch.float64):
        for shift in range(4):
            path = written(tmp_path, {"x" * shift: "", "model": arrays(state)}, protocol)
            net = torch.nn.Linear(10, 30, dtype=dtype)
            load_checkpoint(net, path)
            assert_same_tensors(net.state_dict(), {key: value.to(dtype) for key, value in state.items()})


def test_a_pickle_written_by_python_2_is_mapped(tmp_path):
    path = tmp_path / "weights.pkl"
    path.write_bytes(python2_pickle({"x": ARRAYS["float32"], "short": np.ones(2, dtype="float32")}))
    found = mapped_pickle.load(path)
    assert np.array_equal(found["x"], ARRAYS["float32"]) and np.array_equal(found["short"], [1, 1])
    assert isinstance(stands_on(found["x"]), mmap.mmap)


LONG = {
    "bytes": bytes(range(256)) * 2,
    "text": "weights \u00fc\u4e2d " * 40,
    "array": ARRAYS["float32"],
    "size": torch.Size([3, 4]),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_long_is_itself_wherever_it_stands(tmp_path, protocol):
    content = {"in a list": [1, [LONG["bytes"], LONG["text"]]], "in a tuple": ("a", (LONG["array"],)), **LONG}
    found = mapped_pickle.load(written(tmp_path, content, protocol))
    assert found["in a list"] == content["in a list"]
    assert found["size"] == LONG["size"] and type(found["size"]) is torch.Size
    assert np.array_equal(found["in a tuple"][1][0], LONG["array"])
    # One object that stands in several places stays one.
    assert found["in a tuple"][1][0] is found["array"]
    assert found["in a list"][1][0] is found["bytes"] and type(found["bytes"]) is bytes
    assert found["in a list"][1][1] is found["text"] == LONG["text"]


def test_a_long_bytearray_of_protocol_5(tmp_path):
    found = mapped_pickle.load(written(tmp_path, {"x": bytearray(range(256))}, 5))
    assert found == {"x": bytearray(range(256))} and type(found["x"]) is bytearray


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tensors_and_inert_objects_with_long_arguments(tmp_path, protocol):
    state = {"x": torch.arange(300.0)}
    beside = argparse.Namespace(text=LONG["text"], array=LONG["array"])
    path = written(tmp_path, {"model": state, "args": beside, "error": ValueError(LONG["text"])}, protocol)
    assert_same_tensors(read_checkpoint(path).tensors, state)


def test_content_that_holds_itself(tmp_path):
    content = [ARRAYS["float32"]]
    content.append((content, {"again": content}))
    found = mapped_pickle.load(written(tmp_path, content))
    assert np.array_equal(found[0], ARRAYS["float32"])
    assert found[1][0] is found and found[1][1]["again"] is found


def test_writing_to_the_arrays_leaves_the_file_as_it_was(tmp_path):
    path = written(tmp_path, ARRAYS)
    before = path.read_bytes()
    for array in mapped_pickle.load(path).values():
        array[...] = 0
    assert path.read_bytes() == before


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("part", [0.01, 0.2, 0.5, 0.99])
def test_cut_files(tmp_path, part, protocol):
    path = written(tmp_path, ARRAYS, protocol)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(CheckpointFileError, match=r"Is it whole\?"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"T\xff\xff\xff\xff", "cut"),  # a string of -1 bytes
        (b"\x8b\xf0\xff\xff\xff", "cut"),  # a number of -16
        (b"B\xff\xff\xff\xffabc", "cut"),
        (b"\x8e" + b"\xff" * 8 + b"abc", "cut"),
        (b"cos", "cut"),
        (b"\xff", "cut"),
        (b"\x97", "buffers that are not in the file"),
    ],
)
def test_lengths_and_instructions_that_cannot_be(tmp_path, program, message):
    path = tmp_path / "weights.pkl"
    path.write_bytes(b"\x80\x04" + program + b".")
    with pytest.raises(CheckpointFileError, match=message):
        read_checkpoint(path)


@pytest.mark.parametrize("shape", [(301,), (299,), (2**40, 2**40), (-1, 10)])
def test_a_shape_that_is_not_that_of_the_bytes(tmp_path, shape):
    class Lies:
        def __reduce__(self):
            array = ARRAYS["float32"].ravel()
            make, args, (version, _, dtype, fortran, data) = array.__reduce__()
            return make, args, (version, shape, dtype, fortran, data)

    path = written(tmp_path, {"x": Lies()})
    with pytest.raises(CheckpointFileError, match="can't be read as pickle"):
        read_checkpoint(path)
