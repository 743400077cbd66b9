"""A process that is killed while it saves: a small share of `python -m tests.soak crash`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from detrex_backbones import atomic_write
from detrex_backbones.atomic_write import write_whole

ROOT = Path(__file__).parents[2]
# In a process of its own, since it forks.
KILL = "import torch; torch.set_num_threads(1); from tests.soak import crash; print(crash.every_step(stride=15))"

posix = pytest.mark.skipif(os.name != "posix", reason="needs fork and locks")


@pytest.mark.slow
@posix
def test_a_save_that_is_killed_at_any_step_loses_nothing():
    done = subprocess.run([sys.executable, "-c", KILL], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "steps of a save killed at" in done.stdout


def test_a_file_reaches_the_disk_before_its_name_does_and_then_the_folder_does(tmp_path, monkeypatch):
    """What a power cut needs: otherwise the name may be there without the bytes."""
    order = []

    def told(owner, name):
        usual = getattr(owner, name)

        def call(first, *args):
            order.append((name, Path(f"/proc/self/fd/{first}").resolve() if name == "fsync" else first))
            return usual(first, *args)

        monkeypatch.setattr(owner, name, call)

    told(os, "fsync")
    told(Path, "replace")
    path = tmp_path / "file"
    write_whole(path, lambda file: order.append(("write", Path(file.name))) or file.write(b"text"))
    partial = order[0][1]
    assert partial.parent == tmp_path and partial != path
    if Path("/proc/self/fd").exists():
        expected = [("write", partial), ("fsync", partial), ("replace", partial), ("fsync", tmp_path)]
        assert order == expected


@posix
def test_parts_of_a_killed_process_are_removed_and_those_of_a_living_one_are_not(tmp_path):
    path = tmp_path / "model.pth"
    (tmp_path / ".model.pth.0123abcd.partial").write_bytes(b"of a killed process")
    (tmp_path / ".other.pth.0123abcd.partial").write_bytes(b"of another file")

    def write(file):
        # Somebody else saves the same file meanwhile.
        write_whole(path, lambda other: other.write(b"meanwhile"))
        assert path.read_bytes() == b"meanwhile"
        file.write(b"in the end")

    write_whole(path, write)
    assert path.read_bytes() == b"in the end"
    assert sorted(file.name for file in tmp_path.iterdir()) == [".other.pth.0123abcd.partial", "model.pth"]


@posix
def test_a_part_that_is_taken_for_abandoned_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    usual, calls = atomic_write.fcntl.flock, []

    def flock(file, how):
        calls.append(how)
        if len(calls) == 1:
            Path(file.name).unlink()
        usual(file, how)

    monkeypatch.setattr(atomic_write.fcntl, "flock", flock)
    write_whole(tmp_path / "file", lambda file: file.write(b"text"))
    assert len(calls) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@posix
def test_a_file_system_without_locks_is_written_to_all_the_same(tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(atomic_write.fcntl, "flock", flock)
    (tmp_path / ".file.0123abcd.partial").write_bytes(b"of whom, nobody knows")
    write_whole(tmp_path / "file", lambda file: file.write(b"text"))
    assert (tmp_path / "file").read_bytes() == b"text"
    assert (tmp_path / ".file.0123abcd.partial").exists()


def test_without_a_module_for_locks_too(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic_write, "fcntl", None)
    write_whole(tmp_path / "file", lambda file: file.write(b"text"))
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"text"]
