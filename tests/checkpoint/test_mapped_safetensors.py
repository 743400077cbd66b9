import json
import struct

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from detrex_backbones.checkpoint import mapped_safetensors

TENSORS = {
    "float32": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "float64": torch.linspace(0, 1, 5, dtype=torch.float64),
    "float16": torch.linspace(0, 1, 7).half(),
    "bfloat16": torch.linspace(0, 1, 7).bfloat16(),
    "int64": torch.tensor(7),
    "int32": torch.arange(3, dtype=torch.int32),
    "int16": torch.arange(3, dtype=torch.int16),
    "int8": torch.arange(5, dtype=torch.int8),
    "uint8": torch.arange(5, dtype=torch.uint8),
    "bool": torch.tensor([True, False, True]),
    "empty": torch.empty(0, 3),
}


def assert_same(path):
    ours, theirs = mapped_safetensors.load(path), load_file(path)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype
        assert ours[name].shape == value.shape
        assert torch.equal(ours[name], value)
    return ours


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_every_dtype_is_safetensors_own(tmp_path, metadata):
    save_file(TENSORS, tmp_path / "x.safetensors", metadata)
    ours = assert_same(tmp_path / "x.safetensors")
    assert all(value.untyped_storage().nbytes() == value.nbytes for value in ours.values()), "saved with its neighbours"


@pytest.mark.parametrize("tensors", [{}, {"empty": torch.empty(0)}, {"one": torch.ones(1)}])
def test_next_to_nothing(tmp_path, tensors):
    save_file(tensors, tmp_path / "x.safetensors")
    assert_same(tmp_path / "x.safetensors")


def test_a_dtype_that_is_rare(tmp_path):
    save_file({"a": torch.ones(3), "b": torch.ones(4).to(torch.float8_e4m3fn)}, tmp_path / "x.safetensors")
    assert mapped_safetensors.load(tmp_path / "x.safetensors")["b"].dtype == torch.float8_e4m3fn


def test_numbers_that_begin_anywhere(tmp_path):
    """Other writers need not sort by the size of the numbers, nor pad the header."""
    header = {
        "odd": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "float32": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]},
    }
    text = json.dumps(header).encode()
    data = b"\x07" + struct.pack("<2f", 1.5, -2.5)
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    assert assert_same(tmp_path / "x.safetensors")["float32"].tolist() == [1.5, -2.5]


def test_the_file_is_never_written_to(tmp_path):
    save_file({"a": torch.ones(3)}, tmp_path / "x.safetensors")
    before = (tmp_path / "x.safetensors").read_bytes()
    mapped_safetensors.load(tmp_path / "x.safetensors")["a"].zero_()
    assert (tmp_path / "x.safetensors").read_bytes() == before


def test_what_safetensors_refuses_is_refused(tmp_path):
    save_file({"a": torch.ones(3)}, tmp_path / "x.safetensors")
    data = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(data[:-1])
    with pytest.raises(SafetensorError):
        mapped_safetensors.load(tmp_path / "x.safetensors")


def test_a_file_that_changes_after_the_check_is_refused(tmp_path, monkeypatch):
    save_file({"a": torch.ones(3)}, tmp_path / "x.safetensors")
    header, start = mapped_safetensors.safetensors_header(tmp_path / "x.safetensors")
    for shape in ([4], [3, 2], [2]):
        changed = {"a": {**header["a"], "shape": shape}}
        monkeypatch.setattr(
            mapped_safetensors, "safetensors_header", lambda path, changed=changed: (dict(changed), start)
        )
        with pytest.raises(ValueError, match="can't lie at bytes 0 to 12"):
            mapped_safetensors.load(tmp_path / "x.safetensors")
    moved = {"a": {**header["a"], "data_offsets": [800, 812]}}
    monkeypatch.setattr(mapped_safetensors, "safetensors_header", lambda path: (moved, start))
    with pytest.raises(ValueError, match="buffer length"):
        mapped_safetensors.load(tmp_path / "x.safetensors")
