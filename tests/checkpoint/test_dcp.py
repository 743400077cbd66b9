"""Folders of torch.distributed.checkpoint, whole, damaged and hostile: read without running anything in them."""

from __future__ import annotations

import os
import pickle
import random
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.metadata import MetadataIndex

from detrex_backbones import load_checkpoint
from detrex_backbones.checkpoint.read import Call, load_tensors, open_content
from detrex_backbones.checkpoint.read.nested import put_in, take_out
from detrex_backbones.errors import CheckpointFileError
from tests.checkpoint.nets import assert_same_tensors, snapshot

NET = {"weight": torch.arange(12.0).reshape(4, 3), "bias": torch.arange(4.0)}


@pytest.fixture
def folder(tmp_path):
    """A folder as torch itself writes it."""
    path = tmp_path / "saved"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this is a single process
        dcp.save({"model": NET, "iteration": 7, "history": [torch.ones(2), {"a": torch.zeros(1)}]}, checkpoint_id=path)
    return path


def table(folder):
    """The table of contents, as torch reads it."""
    return pickle.loads((folder / ".metadata").read_bytes())


def write(folder, contents):
    """Another table of contents."""
    (folder / ".metadata").write_bytes(pickle.dumps(contents))


def refused(folder):
    """The message of a load; the model is bytewise as it was."""
    model = nn.Linear(3, 4)
    before = snapshot(model)
    with pytest.raises(CheckpointFileError) as caught:
        load_checkpoint(model, folder)
    assert snapshot(model) == before
    assert str(folder) in str(caught.value)
    return str(caught.value)


def read_file(path: Path) -> tuple[Any, str]:
    """What is stored, with the values of its tensors."""
    with open_content(path) as content:
        structure, stored = take_out(content.value)
        values = dict(zip(stored, load_tensors(stored.values()), strict=True))
        return put_in(structure, values), content.format


def test_a_folder_is_read_as_it_was_saved(folder):
    content, kind = read_file(folder)
    assert kind == "dcp"
    assert_same_tensors(content["model"], NET)
    assert content["iteration"] == 7
    assert content["history"][0].tolist() == [1, 1]
    assert content["history"][1]["a"].tolist() == [0]


def test_a_folder_is_loaded_into_a_model(folder):
    model = nn.Linear(3, 4)
    assert load_checkpoint(model, folder).format == "dcp"
    assert_same_tensors(model.state_dict(), NET)


def test_a_folder_of_something_else_is_refused(tmp_path):
    assert "is a folder" in refused(tmp_path)


class Runs:
    """What a stranger writes into a pickle."""

    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


def test_nothing_in_the_table_is_run(folder, tmp_path):
    contents = table(folder)
    contents.planner_data = Runs(os.system, f"touch {tmp_path / 'run'}")
    write(folder, contents)
    model = nn.Linear(3, 4)
    load_checkpoint(model, folder, prefix="model")  # without the plan, names are flat
    assert_same_tensors(model.state_dict(), NET)
    write(folder, Runs(os.system, f"touch {tmp_path / 'run'}"))
    refused(folder)
    assert not (tmp_path / "run").exists()


def test_nothing_in_an_entry_is_run(folder, tmp_path):
    path = tmp_path / "hostile"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"model": NET, "extra": Runs(os.mkdir, str(tmp_path / "run"))}, checkpoint_id=path)
    (tmp_path / "run").rmdir() if (tmp_path / "run").exists() else None
    assert isinstance(read_file(path)[0]["extra"], Call)
    assert not (tmp_path / "run").exists()


def test_what_a_table_sets_on_a_class_does_not_stay(folder):
    # GLOBAL, then BUILD: attributes for the class itself.
    name = b"ctorch.distributed.checkpoint.metadata\nMetadata\n"
    (folder / ".metadata").write_bytes(b"\x80\x02" + name + b"}(X\x03\x00\x00\x00badK\x01ub.")
    refused(folder)
    assert not hasattr(dcp.metadata.Metadata, "bad")


def entry(contents, name):
    """What the table says of a piece."""
    return next(info for index, info in contents.storage_data.items() if index.fqn == name)


def elsewhere(contents):
    entry(contents, "model.bias").relative_path = "../../secret"


def larger(contents):
    contents.state_dict_metadata["model.bias"].size = torch.Size([1 << 40])


def negative(contents):
    contents.state_dict_metadata["model.bias"].size = torch.Size([-4])


def longer(contents):
    contents.state_dict_metadata["model.bias"].size = torch.Size([5])


def other_dtype(contents):
    contents.state_dict_metadata["model.bias"].properties.dtype = torch.int32


def past_the_end(contents):
    index = next(index for index in contents.storage_data if index.fqn == "model.bias")
    contents.storage_data[MetadataIndex("model.bias", torch.Size([2]))] = contents.storage_data.pop(index)


def none(contents):
    index = next(index for index in contents.storage_data if index.fqn == "model.bias")
    del contents.storage_data[index]


def compressed(contents):
    entry(contents, "model.bias").transform_descriptors = ["zstd"]


def other_piece(contents):
    entry(contents, "model.bias").offset = entry(contents, "model.weight").offset


@pytest.mark.parametrize(
    "change", [elsewhere, larger, negative, longer, other_dtype, past_the_end, none, compressed, other_piece]
)
def test_a_table_that_is_wrong_is_refused(folder, change):
    contents = table(folder)
    change(contents)
    write(folder, contents)
    message = refused(folder)
    assert "can't be read as dcp" in message


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_a_folder_with_a_file_cut_or_gone_is_refused(folder, name):
    whole = (folder / name).read_bytes()
    generator = random.Random(0)
    for length in [0, *(generator.randrange(len(whole)) for _ in range(16))]:
        (folder / name).write_bytes(whole[:length])
        refused(folder)
    (folder / name).unlink()
    refused(folder)


def test_a_flipped_byte_is_noticed_or_harmless(folder):
    file = folder / "__0_0.distcp"
    whole = file.read_bytes()
    generator = random.Random(1)
    refusals = 0
    for _ in range(64):
        damaged = bytearray(whole)
        damaged[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        file.write_bytes(damaged)
        model = nn.Linear(3, 4)
        try:
            load_checkpoint(model, folder)
        except CheckpointFileError:
            refusals += 1
        else:
            assert_same_tensors(model.state_dict(), NET)
    assert refusals > 0


def test_a_program_in_a_piece_is_refused(folder):
    with zipfile.ZipFile(folder / "__0_0.distcp", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "version"):
            archive.writestr(f"archive/{name}", "3\n")
    contents = table(folder)
    for info in contents.storage_data.values():
        info.offset, info.length = 0, (folder / "__0_0.distcp").stat().st_size
    write(folder, contents)
    assert "TorchScript" in refused(folder)


def test_a_model_does_not_depend_on_the_folder_once_it_is_loaded(folder):
    model = nn.Linear(3, 4)
    load_checkpoint(model, folder)
    before = snapshot(model)
    for file in folder.iterdir():
        file.write_bytes(b"")
    assert snapshot(model) == before


def test_structures_come_back_as_they_were():
    one, other = torch.ones(1), torch.zeros(2)
    value = {"a": {"b": one}, "a.b": other, 3: [one, (other, None)], "empty": {}}
    structure, tensors = take_out(value)
    assert sorted(tensors) == ["3.0", "3.1.0", "a.b", "a.b'"]
    back = put_in(structure, tensors)
    assert back["a"]["b"] is one
    assert back["a.b"] is other
    assert back[3][1][0] is other
    assert back[3][1][1] is None
    assert back["empty"] == {}
