"""What DetectionCheckpointer writes: whole or not at all."""

import os
import stat

import pytest
import torch

from detrex_backbones import load_checkpoint
from detrex_backbones.errors import ArgumentError, CheckpointError, CheckpointFileError
from tests.checkpoint.nets import snapshot
from tests.checkpoint.training import Run


def files(folder):
    """Every file with its bytes."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


class Unpicklable:
    """Comes after the weights, and can't be saved."""

    def __reduce__(self):
        raise ValueError("not to be saved")


def test_a_save_that_fails_half_way_leaves_the_earlier_checkpoint(tmp_path):
    run = Run(tmp_path)
    run.checkpointer.save("model", iteration=1)
    before = files(tmp_path)
    run.train(0, 3)
    for name in ("model", "other"):
        with pytest.raises(ValueError, match="not to be saved"):
            run.checkpointer.save(name, extra=Unpicklable())
        assert files(tmp_path) == before
    assert Run(tmp_path, seed=1).checkpointer.resume_or_load("") == {"iteration": 1}


def test_a_folder_that_can_not_be_made(tmp_path):
    file = tmp_path / "file"
    file.write_text("text")
    for folder in (file, file / "below"):
        with pytest.raises(CheckpointFileError, match="can't be written") as caught:
            Run(folder).checkpointer.save("model")
        assert isinstance(caught.value, CheckpointError) and isinstance(caught.value, OSError)
        assert str(folder) in str(caught.value)
    assert file.read_text() == "text"


@pytest.mark.parametrize("name", ["../model", "folder/model", ""])
def test_a_name_with_a_folder_in_it(tmp_path, name):
    with pytest.raises(ArgumentError, match="is no name of a file in save_dir"):
        Run(tmp_path / "folder").checkpointer.save(name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="there is no umask")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_file_permissions_follow_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        Run(tmp_path / "folder").checkpointer.save("model")
    finally:
        os.umask(before)
    for file in (tmp_path / "folder").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask


def test_saving_over_a_checkpoint_that_is_loaded(tmp_path):
    run = Run(tmp_path).train(0, 3)
    run.checkpointer.save("model")
    other = Run(tmp_path, seed=1)
    other.checkpointer.resume_or_load("")
    other.checkpointer.save("model")
    assert other.train(3, 6).state() == run.train(3, 6).state()


def test_the_optimizer_does_not_depend_on_the_file_once_it_is_loaded(tmp_path):
    """Files are mapped; what stays behind in a state would change, or crash, with the file."""
    run = Run(tmp_path).train(0, 3)
    run.checkpointer.save("model", averaged=torch.ones(50))
    other = Run(tmp_path, seed=1)
    rest = other.checkpointer.resume_or_load("")
    path = tmp_path / "model.pth"
    with path.open("r+b") as opened:
        opened.write(bytes(path.stat().st_size))
    assert other.train(3, 6).state() == run.train(3, 6).state()
    assert torch.equal(rest["averaged"], torch.ones(50))


def test_what_is_saved_can_be_loaded_by_load_checkpoint(tmp_path):
    run = Run(tmp_path).train(0, 2)
    run.checkpointer.save("model")
    other = Run(seed=1)
    load_checkpoint(other.model, tmp_path / "model.pth")
    assert snapshot(other.model) == snapshot(run.model)
