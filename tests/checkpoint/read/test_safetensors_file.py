"""Files of safetensors: what its own library writes, what others may write, and what neither does."""

import json
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.checkpoint.read import load_tensors, safetensors_file
from detrex_backbones.checkpoint.read.safetensors_file import DTYPES, read_safetensors
from detrex_backbones.checkpoint.read.source import DamagedError, open_source
from detrex_backbones.errors import CheckpointFileError
from tests.checkpoint.nets import assert_same_tensors
from tests.checkpoint.read.test_torch_file import numbers
from tests.old_libraries import skip_before

YOUNGER = ("U64", "U32", "U16", "C64", "F8_E4M3FNUZ", "F8_E5M2FNUZ")


def loaded(path):
    with open_source(path) as source:
        stored = read_safetensors(source)
        return dict(zip(stored, load_tensors(stored.values()), strict=True))


def made(path, header, data=b"", text=None):
    text = json.dumps(header).encode() if text is None else text
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_is_safetensors_own(tmp_path, name):
    if name in YOUNGER:
        skip_before("safetensors", "0.7", f"it has no {name}")
    values = numbers(DTYPES[name])
    tensors = {
        "flat": values,
        "rows": values.view(3, 4).clone(),
        "scalar": values[5].clone(),
        "empty": values[:0].clone(),
    }
    save_file(tensors, tmp_path / "x.safetensors", {"format": "pt"})
    theirs = load_file(tmp_path / "x.safetensors")
    assert_same_tensors({key: loaded(tmp_path / "x.safetensors")[key] for key in theirs}, theirs)
    assert theirs["flat"].dtype == values.dtype


@pytest.mark.parametrize("tensors", [{}, {"empty": torch.empty(0)}, {"one": torch.ones(1)}])
def test_next_to_nothing(tmp_path, tensors):
    save_file(tensors, tmp_path / "x.safetensors")
    assert_same_tensors(loaded(tmp_path / "x.safetensors"), tensors)


def test_numbers_that_begin_anywhere(tmp_path):
    """Other writers need not sort by the size of the numbers, nor pad the header."""
    header = {
        "odd": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "float32": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]},
        "float64": {"dtype": "F64", "shape": [1], "data_offsets": [9, 17]},
    }
    path = made(tmp_path / "x.safetensors", header, b"\x07" + struct.pack("<2f", 1.5, -2.5) + struct.pack("<d", 3.5))
    found = read_checkpoint(path).tensors
    assert found["float32"].tolist() == [1.5, -2.5] and found["float64"].tolist() == [3.5]
    assert all(value.data_ptr() % value.element_size() == 0 for value in found.values())


GOOD = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}


@pytest.mark.parametrize("before", [b"", b" ", b"   " * 50])
@pytest.mark.parametrize("after", [b"", b" ", b" " * 500])
def test_a_header_between_spaces(tmp_path, before, after):
    path = made(tmp_path / "weights", None, bytes(16), before + json.dumps({"a": GOOD}).encode() + after)
    assert read_checkpoint(path).format == "safetensors"
    assert read_checkpoint(path).tensors["a"].tolist() == [0.0] * 4


WRONG = {
    "overlapping": {"a": GOOD, "b": {**GOOD, "data_offsets": [8, 24]}},
    "the same bytes twice": {"a": GOOD, "b": GOOD},
    "hole": {"a": GOOD, "b": {**GOOD, "data_offsets": [32, 48]}},
    "hole at the start": {"a": {**GOOD, "data_offsets": [32, 48]}},
    "hole at the end": {"a": GOOD},
    "negative": {"a": {**GOOD, "data_offsets": [-16, 0]}},
    "backwards": {"a": {**GOOD, "data_offsets": [16, 0]}},
    "past the end": {"a": {**GOOD, "data_offsets": [0, 2**40], "shape": [2**38]}},
    "shape that isn't its bytes": {"a": {**GOOD, "shape": [5], "data_offsets": [0, 48]}},
    "shape that overflows": {"a": {**GOOD, "shape": [2**33, 2**33]}},
    "empty shape that can't be": {"a": {"dtype": "F32", "shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}},
    "negative shape": {"a": {**GOOD, "shape": [-4]}},
    "true shape": {"a": {**GOOD, "shape": [True, 4]}},
    "float shape": {"a": {**GOOD, "shape": [4.0]}},
    "infinite shape": {"a": {**GOOD, "shape": [float("inf")]}},
    "65 dimensions": {"a": {**GOOD, "shape": [1] * 64 + [4]}},
    "no shape": {"a": {**GOOD, "shape": 4}},
    "dtype": {"a": {**GOOD, "dtype": "OBJECT"}},
    "dtype that is a list": {"a": {**GOOD, "dtype": []}},
    "dtype that is a table": {"a": {**GOOD, "dtype": {}}},
    "no dtype": {"a": {"shape": [4], "data_offsets": [0, 16]}},
    "three offsets": {"a": {**GOOD, "data_offsets": [0, 8, 16]}},
    "offsets of text": {"a": {**GOOD, "data_offsets": ["0", "16"]}},
    "offsets of floats": {"a": {**GOOD, "data_offsets": [0.0, 16.0]}},
    "a number for a tensor": {"a": 5},
    "a list for a tensor": {"a": [1]},
    "no mapping": [1, 2],
}


@pytest.mark.parametrize("name", WRONG)
def test_headers_that_describe_something_else(tmp_path, name):
    path = made(tmp_path / "weights.safetensors", WRONG[name], bytes(48))
    with pytest.raises(CheckpointFileError, match=r"can't be read as safetensors|is no checkpoint"):
        read_checkpoint(path)


TEXTS = {
    "name twice": json.dumps({"a": GOOD}).encode()[:-1] + b"," + json.dumps({"a": GOOD}).encode()[1:],
    "names that become one": b'{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},'
    b'"\\\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
    "deep": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "not UTF-8": b'{"\xff\xfe":1}',
    "no end": b'{"a":',
    "a number of many digits": b'{"a":' + b"9" * 100_000 + b"}",
    "empty": b"",
}


@pytest.mark.parametrize("name", TEXTS)
def test_headers_that_are_no_json(tmp_path, name):
    path = made(tmp_path / "weights.safetensors", None, b"", TEXTS[name])
    with pytest.raises(CheckpointFileError):
        read_checkpoint(path)


def test_half_a_character_in_a_name(tmp_path):
    path = made(tmp_path / "x.safetensors", None, bytes(16), json.dumps({"\ud800weight": GOOD}).encode())
    assert list(read_checkpoint(path).tensors) == ["\\ud800weight"]


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 10_000])
def test_a_header_longer_than_the_file(tmp_path, length):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}" + bytes(100))
    with pytest.raises(CheckpointFileError), open_source(path):
        read_checkpoint(path)
    with open_source(path) as source, pytest.raises(DamagedError, match="longer than the file"):
        read_safetensors(source)


def test_what_safetensors_refuses_is_refused(tmp_path):
    save_file({"a": torch.ones(3)}, tmp_path / "x.safetensors")
    data = (tmp_path / "x.safetensors").read_bytes()
    for changed in (data[:-1], data + b"\0"):
        (tmp_path / "x.safetensors").write_bytes(changed)
        with pytest.raises(CheckpointFileError, match="describes"):
            read_checkpoint(tmp_path / "x.safetensors")


def test_the_file_is_never_written_to(tmp_path):
    save_file({"a": torch.ones(3)}, tmp_path / "x.safetensors")
    before = (tmp_path / "x.safetensors").read_bytes()
    read_checkpoint(tmp_path / "x.safetensors").tensors["a"].zero_()
    assert (tmp_path / "x.safetensors").read_bytes() == before


@pytest.mark.parametrize(("count", "read"), [(10, False), (1000, True)])
def test_a_header_is_not_longer_than_its_tensors_unless_it_is_short(tmp_path, monkeypatch, count, read):
    monkeypatch.setattr(safetensors_file, "HEADER", 32)
    path = made(tmp_path / "x", {"a": {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}}, bytes(count))
    if read:
        assert loaded(path)["a"].shape == (count,)
    else:
        with pytest.raises(DamagedError, match="longer than the tensors"):
            loaded(path)
