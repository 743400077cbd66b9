"""Files of numpy, and numpy's arrays and numbers in pickles: as numpy reads them."""

import io
import pickle

import numpy as np
import pytest
import torch

from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.checkpoint.read import LazyTensor, OtherTensor, load_tensors
from detrex_backbones.checkpoint.read.numpy_file import read_array
from detrex_backbones.checkpoint.read.source import DamagedError, Source
from detrex_backbones.errors import CheckpointFileError
from tests.checkpoint.nets import raw

KINDS = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", "c8", "c16"]
SHAPES = [(12,), (3, 4), (2, 3, 2), (0,), (0, 5), (), (1, 12, 1)]


def array(kind, shape, order="<"):
    count = int(np.prod(shape))
    dtype = np.dtype(kind)
    data = np.arange(count * dtype.itemsize, dtype="u1")
    return (data % 2 if kind == "b1" else data).view(dtype).reshape(shape).astype(dtype.newbyteorder(order))


def same(found, expected):
    native = np.ascontiguousarray(expected.astype(expected.dtype.newbyteorder("=")))
    return tuple(found.shape) == expected.shape and raw(found) == native.tobytes()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_dtype_shape_and_order(tmp_path, kind, order):
    arrays = {f"a{index}": array(kind, shape, order) for index, shape in enumerate(SHAPES)}
    arrays |= {"fortran": np.asfortranarray(array(kind, (3, 4), order)), "reversed": array(kind, (12,), order)[::-1]}
    np.savez(tmp_path / "weights.npz", **arrays)
    files = [tmp_path / "weights.npz"]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        files.append(tmp_path / f"weights{protocol}.pkl")
        files[-1].write_bytes(pickle.dumps(arrays, protocol))
    for file in files:
        found = read_checkpoint(file).tensors
        assert set(found) == set(arrays)
        assert all(same(found[name], value) for name, value in arrays.items()), file


@pytest.mark.parametrize("kind", KINDS)
def test_one_array(kind):
    for version in ((1, 0), (2, 0), (3, 0)):
        for value in (array(kind, (3, 4)), np.asfortranarray(array(kind, (3, 4)))):
            file = io.BytesIO()
            np.lib.format.write_array(file, value, version)
            (found,) = load_tensors([read_array(Source.of_memory(file.getvalue()))])
            assert same(found, value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_numbers_of_numpy(tmp_path, protocol):
    numbers = {kind: np.dtype(kind).type(1) for kind in KINDS if not kind.startswith("c")}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": numbers, "lr": np.float64(0.5)}, protocol))
    found = read_checkpoint(tmp_path / "w.pkl")
    assert {name: value.item() for name, value in found.tensors.items()} == dict.fromkeys(numbers, 1)
    assert found.extra["lr"] == 0.5


ODD = {
    "objects": np.array([{"a": 1}, None], dtype=object),
    "structures": np.zeros(2, dtype=[("a", "f4"), ("b", "i4")]),
    "text": np.array(["a", "b"]),
    "dates": np.array(["2020-01-01"], dtype="M8[D]"),
}


@pytest.mark.parametrize("name", ODD)
def test_arrays_that_torch_does_not_have_are_named(tmp_path, name):
    arrays = {"x": np.ones(3), "odd": ODD[name]}
    np.savez(tmp_path / "w.npz", **arrays)
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(arrays))
    for file in ("w.npz", "w.pkl"):
        found = read_checkpoint(tmp_path / file)
        assert list(found.tensors) == ["x"] and "array of" in found.unread["odd"]


def npy(header: str, data=b"", version=1) -> bytes:
    text = header.encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2 if version == 1 else 4, "little") + text + data


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }"
HEADERS = {
    "more than its bytes": GOOD.replace("4,", "5,"),
    "fewer": GOOD.replace("4,", "3,"),
    "negative": GOOD.replace("(4,)", "(-4,)"),
    "two negative": GOOD.replace("(4,)", "(-2, -2)"),
    "true": GOOD.replace("(4,)", "(True, 4)"),
    "float": GOOD.replace("(4,)", "(4.0,)"),
    "huge": GOOD.replace("(4,)", "(4611686018427387904, 4611686018427387904)"),
    "huge and empty": GOOD.replace("(4,)", "(0, 4611686018427387904, 4611686018427387904)"),
    "no tuple": GOOD.replace("(4,)", "4"),
    "a call": GOOD.replace("(4,)", "__import__('os').getpid()"),
    "a name": GOOD.replace("(4,)", "shape"),
    "no shape": "{'descr': '<f4', 'fortran_order': False, }",
    "no end": GOOD[:-1],
    "a list": "[1]",
    "deep": "(" * 5000,
    "minus signs": "-" * 5000 + "1",
    "many dimensions": GOOD.replace("(4,)", "(" + "1, " * 64 + "4)"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_describe_something_else(name):
    with pytest.raises(DamagedError):
        read_array(Source.of_memory(npy(HEADERS[name], bytes(16))))
    assert isinstance(read_array(Source.of_memory(npy(GOOD, bytes(16)))), LazyTensor)


def test_headers_of_other_writers():
    for text in (
        "{'descr':'<f4','fortran_order':False,'shape':(4,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4L,), }",
    ):
        found = read_array(Source.of_memory(npy(text, bytes(16))))
        assert isinstance(found, LazyTensor) and found.shape == (4,)
    assert isinstance(read_array(Source.of_memory(npy(GOOD.replace("f4", "f16"), bytes(64)))), OtherTensor)


@pytest.mark.parametrize("end", [0, 5, 8, 11, 60, 130])
def test_arrays_that_are_cut(end):
    with pytest.raises(DamagedError):
        read_array(Source.of_memory(npy(GOOD, bytes(16))[:end]))


@pytest.mark.parametrize("length", [30, 60, 250])
def test_an_archive_whose_first_name_is_long(tmp_path, length):
    np.savez(tmp_path / "w.npz", **{"a" * length: np.ones(3), "b/c:0": np.zeros(2)})
    assert [*read_checkpoint(tmp_path / "w.npz").tensors] == ["a" * length, "b/c:0"]


def test_a_compressed_archive_says_so(tmp_path):
    np.savez_compressed(tmp_path / "w.npz", x=np.ones(100))
    with pytest.raises(CheckpointFileError, match="compressed"):
        read_checkpoint(tmp_path / "w.npz")


def test_a_flipped_byte(tmp_path):
    np.savez(tmp_path / "w.npz", x=np.ones(100))
    data = bytearray((tmp_path / "w.npz").read_bytes())
    data[300] ^= 1
    (tmp_path / "w.npz").write_bytes(data)
    with pytest.raises(CheckpointFileError, match="checksum"):
        read_checkpoint(tmp_path / "w.npz")


def test_torch_tensors_of_one_shape_stay_their_own(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.ones(3), b=np.zeros(3))
    found = read_checkpoint(tmp_path / "w.npz").tensors
    assert torch.equal(found["a"], torch.ones(3).double()) and torch.equal(found["b"], torch.zeros(3).double())
