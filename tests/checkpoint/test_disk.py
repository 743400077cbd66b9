"""A disk that fails at any step of a save: an error of ours that names the reason, and every file as it was before."""

import errno
import io
import os
from pathlib import Path

import pytest
import torch

from detrex_backbones.atomic_write import write_whole
from detrex_backbones.checkpoint.convert import convert_checkpoint
from detrex_backbones.config import LazyConfig
from detrex_backbones.errors import CheckpointFileError, ConfigValueError
from tests.checkpoint.training import Run

REASONS = {
    errno.ENOSPC: "No space left on device",
    errno.EDQUOT: "Disk quota exceeded",
    errno.EROFS: "Read-only file system",
    errno.EIO: "Input/output error",
}


def files(folder):
    """Every file with its bytes."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def failing(number):
    return OSError(number, os.strerror(number))


class FullDisk(io.FileIO):
    """Takes so many bytes and then no more."""

    def __init__(self, path, room, number):
        super().__init__(path, "x")
        self.room, self.number = room, number

    def write(self, data):
        if len(data) > self.room:
            raise failing(self.number)
        self.room -= len(data)
        return super().write(data)


def fill_after(monkeypatch, room, number):
    """New files take so many bytes."""
    usual = Path.open

    def opened(path, mode="r", *args, **kwargs):
        if mode != "xb":
            return usual(path, mode, *args, **kwargs)
        return io.BufferedWriter(FullDisk(path, room, number))

    monkeypatch.setattr(Path, "open", opened)


def fail_at(monkeypatch, owner, step, number, call):
    """The `call`th use of a function fails, and all after it."""
    usual, calls = getattr(owner, step), []

    def fail(*args, **kwargs):
        calls.append(args)
        if len(calls) >= call:
            raise failing(number)
        return usual(*args, **kwargs)

    monkeypatch.setattr(owner, step, fail)


def assert_refused_and_nothing_changed(folder, number, monkeypatch):
    before = files(folder)
    run = Run(seed=2)
    run.checkpointer.save_dir = str(folder)
    with pytest.raises(CheckpointFileError, match=f"can't be written: .*{REASONS[number]}") as caught:
        run.checkpointer.save("model", iteration=2)
    assert str(folder / "model.pth") in str(caught.value)
    assert "The last one that is whole is still marked." in str(caught.value)
    monkeypatch.undo()
    assert files(folder) == before
    assert Run(folder, seed=1).checkpointer.resume_or_load("") == {"iteration": 1}


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_is_full_after_some_bytes(tmp_path, monkeypatch, number, share):
    Run(tmp_path).checkpointer.save("model", iteration=1)
    fill_after(monkeypatch, int(share * (tmp_path / "model.pth").stat().st_size), number)
    assert_refused_and_nothing_changed(tmp_path, number, monkeypatch)


# Brought to the disk; renamed.
STEPS = {"fsync": os, "replace": Path}


@pytest.mark.parametrize("number", REASONS)
@pytest.mark.parametrize("step", STEPS)
def test_a_disk_that_fails_at_a_step(tmp_path, monkeypatch, step, number):
    Run(tmp_path).checkpointer.save("model", iteration=1)
    fail_at(monkeypatch, STEPS[step], step, number, call=1)
    assert_refused_and_nothing_changed(tmp_path, number, monkeypatch)


@pytest.mark.parametrize("number", REASONS)
def test_a_folder_that_takes_no_file(tmp_path, monkeypatch, number):
    Run(tmp_path).checkpointer.save("model", iteration=1)
    usual = Path.open

    def opened(path, mode="r", *args, **kwargs):
        if mode == "xb":
            raise failing(number)
        return usual(path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", opened)
    assert_refused_and_nothing_changed(tmp_path, number, monkeypatch)


@pytest.mark.parametrize(("step", "call"), [("fsync", 3), ("replace", 2)])
def test_a_mark_that_can_not_be_written_stays(tmp_path, monkeypatch, step, call):
    """The checkpoint is on the disk by then; whoever resumes gets the one before it, which is whole too."""
    Run(tmp_path).checkpointer.save("first", iteration=1)
    before = files(tmp_path)
    fail_at(monkeypatch, STEPS[step], step, errno.ENOSPC, call)
    with pytest.raises(CheckpointFileError, match="No space left on device"):
        Run(tmp_path, seed=2).checkpointer.save("second", iteration=2)
    monkeypatch.undo()
    after = files(tmp_path)
    assert after.keys() - before.keys() == {"second.pth"}
    assert before.items() <= after.items()
    assert Run(tmp_path, seed=1).checkpointer.resume_or_load("") == {"iteration": 1}


def test_a_part_that_can_not_be_removed_does_not_hide_the_reason(tmp_path, monkeypatch):
    fail_at(monkeypatch, os, "fsync", errno.ENOSPC, call=1)
    fail_at(monkeypatch, Path, "unlink", errno.EROFS, call=1)
    with pytest.raises(OSError, match="No space left on device"):
        write_whole(tmp_path / "file", lambda file: file.write(b"text"))


@pytest.mark.parametrize("limit", [0, 100, 1 << 14])
def test_a_limit_of_the_kernel_on_the_size_of_files(tmp_path, limit):
    """Nothing stands between torch and the kernel here. Python ignores the signal, and the write fails."""
    resource = pytest.importorskip("resource")
    Run(tmp_path).checkpointer.save("model", iteration=1)
    before, usual = files(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    tensors = {"model": torch.ones(10_000)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, usual[1]))
    try:
        with pytest.raises(CheckpointFileError, match="File too large"):
            Run(tmp_path).checkpointer.save("model", more=tensors)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert files(tmp_path) == before


@pytest.mark.parametrize("extension", [".pth", ".pkl", ".safetensors", ".ckpt"])
def test_a_conversion_onto_a_full_disk(tmp_path, monkeypatch, file, extension):
    output = tmp_path / f"converted{extension}"
    output.write_bytes(b"what was there")
    fill_after(monkeypatch, 1 << 20, errno.ENOSPC)
    with pytest.raises(CheckpointFileError, match=r"can't be written: .*No space left on device") as caught:
        convert_checkpoint(file, output, to="detectron2")
    assert str(output) in str(caught.value)
    monkeypatch.undo()
    assert files(tmp_path) == {output.name: b"what was there"}


def test_a_config_onto_a_full_disk(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    LazyConfig.save({"depth": 50}, path)
    before = files(tmp_path)
    fill_after(monkeypatch, 3, errno.ENOSPC)
    with pytest.raises(ConfigValueError, match="No space left on device"):
        LazyConfig.save({"depth": 101}, path)
    monkeypatch.undo()
    assert files(tmp_path) == before


def test_a_mark_that_can_not_be_read_is_no_reason_to_start_anew(tmp_path):
    """fvcore takes it for none: days of training would begin again, and overwrite what is there."""
    Run(tmp_path).checkpointer.save("model", iteration=1)
    run = Run(tmp_path, seed=1)
    (tmp_path / "last_checkpoint").unlink()
    (tmp_path / "last_checkpoint").mkdir()
    with pytest.raises(CheckpointFileError, match=r"last_checkpoint', which names the last checkpoint, can't be read"):
        run.checkpointer.resume_or_load("")
