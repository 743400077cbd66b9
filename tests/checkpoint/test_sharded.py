"""Checkpoints in several files: read whole by folder, index or piece; refused where anything disagrees."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from detrex_backbones import load_checkpoint
from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.errors import CheckpointFileError
from tests.checkpoint.nets import assert_same_tensors, empty, small_state, snapshot, weights

FORMATS = {"model.safetensors": save_file, "pytorch_model.bin": torch.save}
COUNT = 3


def piece(name: str, number: int) -> str:
    """As Hugging Face names the pieces of a file."""
    head, dot, ending = name.rpartition(".")
    return f"{head}-{number:05}-of-{COUNT:05}{dot}{ending}"


def write(folder, name="model.safetensors", state=None):
    """A folder with all tensors in three files, and their index."""
    state = small_state() if state is None else state
    folder.mkdir(parents=True, exist_ok=True)
    places = {key: piece(name, 1 + at % COUNT) for at, key in enumerate(state)}
    for file in {*places.values()}:
        FORMATS[name]({key: state[key] for key in state if places[key] == file}, folder / file)
    (folder / "config.json").write_text("{}")
    index = folder / f"{name}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


def assert_read(path, expected=None):
    """It has the same tensors, in whatever order."""
    found = read_checkpoint(path).tensors
    assert_same_tensors(dict(sorted(found.items())), dict(sorted((expected or small_state()).items())))


def refused(path) -> str:
    """The message; a model that it is loaded into stays as it was."""
    model = empty()
    before = snapshot(model)
    with pytest.raises(CheckpointFileError) as caught:
        load_checkpoint(model, path)
    assert snapshot(model) == before
    return str(caught.value)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("given", ["folder", "index", "piece", "piece without index"])
def test_whichever_file_is_given_all_are_read(tmp_path, name, given):
    index = write(tmp_path / "net", name)
    if given == "piece without index":
        index.unlink()
    path = {"folder": index.parent, "index": index}.get(given, index.parent / piece(name, 2))
    found = read_checkpoint(path)
    assert_read(path)
    assert (found.format, found.path) == ("sharded", path)
    write(tmp_path / "net", name, weights())
    if given == "piece without index":
        index.unlink()
    model, from_one = empty(), empty()
    assert load_checkpoint(model, path).coverage == 1.0
    load_checkpoint(from_one, weights())
    assert_same_tensors(model.state_dict(), from_one.state_dict())


def test_an_index_is_known_by_what_is_in_it(tmp_path):
    index = write(tmp_path / "net")
    moved = index.rename(index.with_name("table.json"))
    assert_read(moved)


@pytest.mark.parametrize("name", FORMATS)
def test_a_folder_with_one_file(tmp_path, name):
    FORMATS[name](small_state(), tmp_path / name)
    (tmp_path / "config.json").write_text("{}")
    assert_read(tmp_path)


def test_safetensors_go_first(tmp_path):
    save_file(small_state(), tmp_path / "model.safetensors")
    torch.save({"other": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    assert_read(tmp_path)


@pytest.mark.parametrize("with_index", [True, False])
@pytest.mark.parametrize("gone", [(1,), (3,), (1, 3)])
def test_missing_pieces_are_named(tmp_path, with_index, gone):
    index = write(tmp_path / "net")
    for number in gone:
        (index.parent / piece("model.safetensors", number)).unlink()
    if not with_index:
        index.unlink()
    text = refused(index.parent / piece("model.safetensors", 2))
    assert f"it is in 3 files, of which {len(gone)} {'is' if len(gone) == 1 else 'are'} missing beside it: " in text
    for number in (1, 2, 3):
        assert (piece("model.safetensors", number) in text.partition("missing beside it")[2]) == (number in gone)


@pytest.mark.parametrize(
    "name",
    ["../other.safetensors", "/etc/passwd", "sub/other.safetensors", "..", "", "C:other", "a\\b", "\0", "x" * 300, 7],
)
def test_names_that_lead_elsewhere(tmp_path, name):
    index = write(tmp_path / "net")
    save_file({"more": torch.ones(1)}, tmp_path / "other.safetensors")
    content = json.loads(index.read_text())
    content["weight_map"]["more"] = name
    index.write_text(json.dumps(content))
    text = refused(index)
    assert "names a file elsewhere" in text or "missing beside it" in text or "File name too long" in text
    assert "\0" not in text


@pytest.mark.parametrize("given", ["folder", "index", "piece"])
def test_links_out_of_the_folder(tmp_path, given):
    index = write(tmp_path / "net")
    target = index.parent / piece("model.safetensors", 1)
    shutil.move(target, tmp_path / "elsewhere.safetensors")
    target.symlink_to(tmp_path / "elsewhere.safetensors")
    path = {"folder": index.parent, "index": index}.get(given, index.parent / piece("model.safetensors", 2))
    assert "is a link out of the folder" in refused(path)


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"])
def test_a_link_as_the_only_file_of_a_folder(tmp_path, name):
    index = write(tmp_path / "net")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).symlink_to(index)
    assert "is a link out of the folder" in refused(tmp_path / "folder")


def test_links_that_stay_inside_and_those_of_the_hubs_cache(tmp_path):
    index = write(tmp_path / "net")
    for file in list(index.parent.iterdir()):
        (index.parent / "real").mkdir(exist_ok=True)
        shutil.move(file, index.parent / "real")
        file.symlink_to(Path("real") / file.name)
    assert_read(index.parent)
    repository = tmp_path / "models--org--net"
    snapshot_folder = write(repository / "snapshots" / ("0" * 40)).parent
    (repository / "blobs").mkdir()
    for at, file in enumerate(list(snapshot_folder.iterdir())):
        shutil.move(file, repository / "blobs" / f"blob{at}")
        file.symlink_to(Path("..", "..", "blobs", f"blob{at}"))
    assert_read(snapshot_folder)
    assert_read(snapshot_folder / piece("model.safetensors", 3))


def moved(places):
    places["conv.weight"] = piece("model.safetensors", 3)


def forgotten(places):
    del places["conv.weight"]


def invented(places):
    places["more"] = piece("model.safetensors", 1)


def nothing(places):
    places.clear()


def itself(places):
    places["more"] = "model.safetensors.index.json"


@pytest.mark.parametrize("change", [moved, forgotten, invented, nothing, itself])
def test_an_index_that_contradicts_the_pieces(tmp_path, change):
    index = write(tmp_path / "net")
    assert json.loads(index.read_text())["weight_map"]["conv.weight"] == piece("model.safetensors", 1)
    content = json.loads(index.read_text())
    change(content["weight_map"])
    index.write_text(json.dumps(content))
    text = refused(index)
    assert "disagree about" in text or "has no table weight_map" in text or "holds no tensors" in text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "is no table"),
        ('{"weight_map": 3}', "has no table weight_map"),
        ('{"weight_map": {"a": "b", "a": "c"}}', "a name occurs in it twice"),
        ('{"weight_map": ', "is no JSON"),
    ],
)
def test_an_index_that_is_none(tmp_path, text, why):
    index = write(tmp_path / "net")
    index.write_text(text)
    assert why in refused(index)


@pytest.mark.parametrize("number", ["00000", "00004", "99999"])
def test_a_piece_that_none_of_them_can_be(tmp_path, number):
    index = write(tmp_path / "net")
    index.unlink()
    save_file({"more": torch.ones(1)}, index.parent / f"model-{number}-of-00003.safetensors")
    assert f"piece {int(number)} of 3" in refused(index.parent / f"model-{number}-of-00003.safetensors")


def test_a_tensor_in_two_pieces(tmp_path):
    index = write(tmp_path / "net")
    index.unlink()
    save_file({"conv.weight": torch.ones(1)}, index.parent / piece("model.safetensors", 2))
    assert "repeats tensors of another file: conv.weight" in refused(index.parent / piece("model.safetensors", 1))


def test_a_piece_that_is_not_of_the_index(tmp_path):
    index = write(tmp_path / "net")
    save_file(small_state(), index.parent / "model-00001-of-00001.safetensors")
    assert "beside it doesn't name it" in refused(index.parent / "model-00001-of-00001.safetensors")


def test_an_index_that_was_opened_is_asked_for_by_its_path(tmp_path):
    with write(tmp_path).open("rb") as index, pytest.raises(CheckpointFileError, match="Give its path"):
        read_checkpoint(index)
