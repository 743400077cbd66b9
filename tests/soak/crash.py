"""Crashes on save: a child killed at every step of a save, or at random moments; disks that are full or read-only."""

from __future__ import annotations

import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detrex_backbones import DetectionCheckpointer
from detrex_backbones.atomic_write import write_whole
from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.config import LazyConfig
from detrex_backbones.errors import CheckpointFileError

SIDE = 256  # of the weight that is saved: 256 kB
NAMES = ("model", "model_a", "model_b")  # overwritten in turn


class Run:
    """A training run all of whose numbers are the iteration, so that a mixture of two saves would show."""

    def __init__(self, folder: Path, side: int = SIDE) -> None:
        self.model = nn.Linear(side, side)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.0, momentum=1.0)
        self.checkpointer = DetectionCheckpointer(self.model, folder, optimizer=self.optimizer)
        self.folder = folder

    def save(self, iteration: int, name: str | None = None) -> None:
        """Checkpoint, config, and a file of a single byte's repetition."""
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.fill_(iteration)
                self.optimizer.state[parameter]["momentum_buffer"] = torch.full_like(parameter, iteration)
        self.checkpointer.save(name or NAMES[iteration % len(NAMES)], iteration=iteration)
        LazyConfig.save({"iteration": iteration, "text": "x" * 10_000}, self.folder / "config.yaml")
        write_whole(self.folder / "written", lambda file: file.write(bytes([iteration % 256]) * 100_000))

    def resume(self) -> int:
        """The iteration that the folder's last checkpoint is of; -1 for none. Everything in it is of that iteration."""
        found = self.checkpointer.resume_or_load("").get("iteration", -1)
        if found >= 0:
            momentum = [self.optimizer.state[parameter]["momentum_buffer"] for parameter in self.model.parameters()]
            for tensor in (*self.model.parameters(), *momentum):
                assert bool((tensor == found).all()), f"a checkpoint of iteration {found} holds other numbers"
        return int(found)


def check(folder: Path, marked: int, completed: int) -> int:
    """Look at what a killed child left: whatever was completed is there, whole, and marked.

    Args:
        folder: that it saved in.
        marked: the last iteration whose checkpoint was saved for certain.
        completed: the last one that the config and the other file were saved of too.

    Returns:
        The iteration of the last checkpoint.
    """
    found = Run(folder).resume()
    assert found in (marked, marked + 1), f"{marked} was completed, and {found} is the last one"
    for path in folder.glob("*.pth"):
        checkpoint = read_checkpoint(path)
        numbers = {float(value) for tensor in checkpoint.tensors.values() for value in tensor.unique()}
        assert numbers == {float(checkpoint.extra["iteration"])}, f"{path} is of several iterations: {numbers}"
    if completed >= 0:
        config = LazyConfig.load(folder / "config.yaml")
        assert completed <= config.iteration <= found and len(config.text) == 10_000
        written = (folder / "written").read_bytes()
        assert len(written) == 100_000 and len(set(written)) == 1
    return found


def partials(folder: Path) -> int:
    """How many parts of files lie about."""
    return len(list(folder.glob(".*.partial")))


def fork(work: Callable[[int], None]) -> tuple[int, int]:
    """Run something in a child, which gets the end of a pipe to write to. Returns its id and the end to read from."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    status = 1
    try:
        os.close(reader)
        work(writer)
        status = 0
    finally:
        os._exit(status)  # nothing of the parent's is to run here


def ended(child: int) -> bool:
    """Whether it came to its end by itself; False where it was killed."""
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed"
    return not os.WIFSIGNALED(status)


# ------------------------------------------------------------------------------------------------- every step


def die_at(step: int) -> None:
    """Let this process be killed at the nth thing that it does to the disk, in the middle of it where it writes."""
    done = 0

    def counted(usual: Callable[..., Any], half: Callable[..., Any] | None = None) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            done += 1
            if done == step:
                if half is not None:
                    half(*args)
                os.kill(os.getpid(), signal.SIGKILL)
            return usual(*args, **kwargs)

        return call

    class Killed:
        """A file whose writes are counted; whoever dies in one has written half of it."""

        def __init__(self, file: Any) -> None:
            self.file = file
            self.write = counted(file.write, self.half)

        def half(self, data: Any) -> None:
            self.file.write(memoryview(data)[: len(data) // 2])
            self.file.flush()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    from detrex_backbones import atomic_write

    usual = atomic_write._write
    atomic_write._write = lambda file, write: usual(Killed(file), write)  # type: ignore[assignment,arg-type]
    os.fsync = counted(os.fsync)
    Path.replace = counted(Path.replace)  # type: ignore[method-assign]
    Path.unlink = counted(Path.unlink)  # type: ignore[method-assign]


def every_step(stride: int = 1) -> dict[str, int]:
    """Kill a save at its first step, then at its second, and so on, until one comes to its end."""
    folder = Path(tempfile.mkdtemp())
    left = 0
    Run(folder).save(0)
    killed = 0
    for step in range(1, 10_000, stride):
        last = Run(folder).resume()

        def work(_: int, step: int = step, last: int = last) -> None:
            run = Run(folder)
            die_at(step)
            run.save(last + 1)

        child, reader = fork(work)
        os.close(reader)
        whole = ended(child)
        killed += not whole
        left += partials(folder) > 0
        found = check(folder, last, last)
        assert not whole or (found == last + 1 and not partials(folder)), "a save that ended left something undone"
        for iteration in range(found + 1, found + 1 + len(NAMES)):
            Run(folder).save(iteration)
        assert partials(folder) == 0, "a later save leaves parts of files where they are"
        if whole:
            shutil.rmtree(folder)
            return {"steps of a save killed at": killed, "parts of files left, and removed by the next save": left}
    raise AssertionError("the save never ends")


# ---------------------------------------------------------------------------------------------- random moments


def save_for_ever(folder: Path, writer: int) -> None:
    """Continue from the last checkpoint, and tell which iterations are saved."""
    run = Run(folder)
    iteration = run.resume()
    os.write(writer, struct.pack("<i", iteration))
    while True:
        iteration += 1
        run.save(iteration)
        os.write(writer, struct.pack("<i", iteration))


def random_moments(kills: int, seed: int) -> dict[str, int]:
    """Kill a child that saves in a loop at random moments; the next one continues where it stopped."""
    draw = random.Random(seed)
    folder = Path(tempfile.mkdtemp())
    counts: Counter[str] = Counter()
    marked = completed = -1
    for _ in range(kills):
        child, reader = fork(lambda writer: save_for_ever(folder, writer))
        os.read(reader, 4)  # it has begun
        time.sleep(draw.uniform(0, 0.25))
        os.kill(child, signal.SIGKILL)
        assert not ended(child)
        while told := os.read(reader, 4):
            marked = completed = struct.unpack("<i", told)[0]
        os.close(reader)
        counts["of them in the middle of a file"] += partials(folder) > 0
        found = check(folder, marked, completed)
        counts["of them between the checkpoint and the end of its iteration"] += found > marked
        marked = found
    for iteration in range(marked + 1, marked + 1 + len(NAMES)):
        Run(folder).save(iteration)
    assert partials(folder) == 0
    shutil.rmtree(folder)
    return {"kills at random moments": kills, **counts, "saves completed": marked + 1, "checkpoints lost": 0}


# --------------------------------------------------------------------------------------------------- real disks


def disks() -> dict[str, int | str]:
    """A file system of 2 MB that fills up, and one that turns read-only, in a mount namespace of its own (root)."""
    command = ["unshare", "--mount", sys.executable, "-m", "tests.soak.crash"]
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run([*command, folder], capture_output=True, text=True) if shutil.which("unshare") else None
    if tried is None or tried.returncode == 77:
        return {"saves refused by a full file system": "not tried: mounting takes root"}
    assert tried.returncode == 0, tried.stderr
    full, read_only = map(int, tried.stdout.split())
    return {"saves refused by a full file system": full, "saves refused by a read-only one": read_only}


def on_real_disks(folder: Path) -> None:
    """What `disks` runs inside."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True).returncode:
        sys.exit(77)
    Run(folder).save(0)
    refused: Counter[str] = Counter()
    for room in range(1000, 1_000_000, 25_000):  # bytes that are left
        filler = folder / "filler"
        filler.write_bytes(b"x" * max(0, shutil.disk_usage(folder).free - room))
        with_error(folder, "No space left on device", refused)
        filler.unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    for _ in range(3):
        with_error(folder, "Read-only file system", refused)
    sys.stdout.write(f"{refused['No space left on device']} {refused['Read-only file system']}\n")


def with_error(folder: Path, reason: str, refused: Counter[str]) -> None:
    """A save that succeeds, or our error and the earlier checkpoint."""
    run = Run(folder)
    before = run.resume()
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "filler"}
    try:
        run.checkpointer.save("model", iteration=before)
    except CheckpointFileError as error:
        assert reason in str(error), error
        refused[reason] += 1
        assert files == {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "filler"}
    assert Run(folder).resume() == before and partials(folder) == 0


def run(kills: int = 100, seed: int = 0) -> dict[str, int | str]:
    """Everything."""
    torch.set_num_threads(1)
    return {**every_step(), **random_moments(kills, seed), **disks()}


if __name__ == "__main__":
    on_real_disks(Path(sys.argv[1]))
