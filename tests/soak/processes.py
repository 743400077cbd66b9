"""Many processes: loads by 2 and 4 ranks, deaths and standstills at random moments, torchrun, and memory."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard

from detrex_backbones import DetectionCheckpointer, load_checkpoint
from detrex_backbones.checkpoint import checkpointer as checkpointer_module
from detrex_backbones.checkpoint.place.distributed import load_checkpoint_distributed
from detrex_backbones.checkpoint.place.sharded import local
from tests.checkpoint.distributed import together
from tests.checkpoint.distributed.launch import launch
from tests.checkpoint.distributed.together import FILE, Small, state, whole

MB = 1 << 20
LAYERS, SIDE = 32, 2048  # 32 tensors of 16 MiB: a model of 512 MiB
TIMEOUT = 8.0  # seconds, in which a process that stands still is given up


def run(deaths: int = 10, standstills: int = 2, saves: int = 3) -> dict[str, int | float | str]:
    """The figures.

    Args:
        deaths: loads by 4 ranks of which one is killed before a random tensor.
        standstills: the same, with one that is stopped instead.
        saves: runs of 2 ranks which save a sharded model in a loop until one is killed at a random moment.
    """
    figures: dict[str, int | float | str] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for world in (2, 4):
            figures[f"checks by {world} ranks"] = _checks(_with_file(root / f"checks{world}"), world)
        figures["checks by 4 ranks, two ways of sharding"] = _two_ways(_with_file(root / "ways"))
        figures |= _deaths(root, deaths, signal.SIGKILL, 60.0, "killed")
        figures |= _deaths(root, standstills, signal.SIGSTOP, TIMEOUT, "stopped")
        figures["ranks under torchrun"] = _torchrun(_with_file(root / "torchrun"))
        figures |= _memory(root / "memory")
        figures |= _crashes(root, saves)
    return figures


def _with_file(folder: Path) -> Path:
    (folder / "rank0").mkdir(parents=True)
    torch.save(state(), folder / "rank0" / FILE)
    (folder / "rank0" / "damaged.pth").write_bytes((folder / "rank0" / FILE).read_bytes()[:1000])
    return folder


def _expected(folder: Path) -> dict[str, bytes]:
    model = Small()
    load_checkpoint(model, folder / "rank0" / FILE)
    return whole(model)


def _checks(folder: Path, world: int) -> int:
    """Every check of the ordinary tests, by any number of ranks; how many there were."""
    expected, count = _expected(folder), 0
    for rank, found in enumerate(launch(together.all_of_two, world, folder)):
        loads, refusals, folders = found["loads"], found["refusals"], found["folders"]
        assert loads["opened"] == 0 or rank == 0
        for kind in ("plain", "fsdp", "dtensor", "fsdp alone", "dtensor alone", *(["pair"] if rank < 2 else [])):
            assert loads[kind] == expected, kind
            count += 1
        for case, (text, unchanged) in refusals.items():
            assert unchanged, case
            assert text != "no error" or case == "afterwards", case
            count += 1
        for kind in ("resumed", "unsharded", "otherwise sharded", "read by torch", "written by torch"):
            assert folders[kind] == folders["saved"], kind
            count += 1
        for kind in ("", "one "):
            assert folders[f"{kind}went on after"] == folders[f"{kind}went on"]
            count += 1
    return count


def two_ways(rank: int, folder: Path) -> tuple[Any, Any]:
    """A load into FSDP2 over tensor parallelism, and by one process."""
    if rank == 0:
        torch.manual_seed(3)
        torch.save(together.Even().state_dict(), "even.pth")
    model = together.two_ways(together.Even())
    load_checkpoint_distributed(model, "even.pth")
    alone = together.Even()
    load_checkpoint(alone, folder / "rank0" / "even.pth")
    return whole(model), whole(alone)


def _two_ways(folder: Path) -> int:
    results = launch(two_ways, 4, folder)
    assert all(found == expected for found, expected in results)
    return len(results)


def _deaths(root: Path, times: int, how: int, timeout: float, word: str) -> dict[str, int | float]:
    generator, longest = random.Random(how), 0.0
    for index in range(times):
        victim, tensors = generator.randrange(4), generator.randrange(-1, 12)
        folder = _with_file(root / f"{word}{index}")
        results = launch(together.dies, 4, folder, victim, tensors, how, timeout, victim=victim)
        for rank, result in enumerate(results):
            if rank != victim:
                text, seconds = result
                assert text.startswith("RankError: "), (victim, tensors, text)
                longest = max(longest, seconds)
    return {f"ranks {word}": times, f"longest wait for one {word}, s": round(longest, 2)}


def _torchrun(folder: Path) -> int:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*command, "-m", "tests.soak.processes", str(folder)],
        check=True, timeout=300, env=environment, capture_output=True,
    )  # fmt: skip
    expected = _expected(folder)
    for rank in range(4):
        assert torch.load(folder / f"rank{rank}.pt", weights_only=False) == expected
    return 4


def _under_torchrun(folder: Path) -> None:
    """What each rank does: the file is named by a path that only rank 0's folder has."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    (folder / f"rank{rank}").mkdir(exist_ok=True)
    os.chdir(folder / f"rank{rank}")
    model = Small()
    load_checkpoint_distributed(model, FILE)
    torch.save(whole(model), folder / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


def large() -> nn.Module:
    """A model without a value yet."""
    with torch.device("meta"):
        return nn.Sequential(*(nn.Linear(SIDE, SIDE, bias=False) for _ in range(LAYERS)))


def anonymous() -> int:
    """Bytes of memory of this process that are no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon", "RssShmem")))


@contextmanager
def highest() -> Iterator[list[int]]:
    """The largest amount of anonymous memory while something is done, in bytes above the start."""
    found, over, start = [0], threading.Event(), anonymous()

    def watch() -> None:
        while not over.wait(0.002):
            found[0] = max(found[0], anonymous() - start)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


def memory(rank: int, folder: Path, path: str, shard: bool) -> float:
    """MiB that a load takes at its highest beyond the model, whose own memory is touched before."""
    model = large()
    if shard:
        for layer in model:
            fully_shard(layer)
        fully_shard(model)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)
    torch.distributed.barrier()
    with highest() as found:
        load_checkpoint_distributed(model, path)
    for index, parameter in enumerate(model.parameters()):
        assert bool((local(parameter) == index).all())
    return found[0] / MB


def _memory(folder: Path) -> dict[str, int | float | str]:
    folder.mkdir()
    (folder / "rank0").mkdir()
    tensors = {f"{index}.weight": torch.full((SIDE, SIDE), float(index)) for index in range(LAYERS)}
    torch.save(tensors, folder / "rank0" / "large.pth")
    size = (folder / "rank0" / "large.pth").stat().st_size
    del tensors
    figures: dict[str, int | float | str] = {"file, MiB": size // MB, "its largest tensor, MiB": SIDE * SIDE * 4 // MB}
    for kind, shard in (("ordinary", False), ("FSDP2", True)):
        world = 4 if shard else 2
        results = launch(memory, world, folder, "large.pth", shard)
        for file in folder.glob("result*"):
            file.unlink()
        (folder / "meeting").unlink()
        figures[f"most memory beyond the model, {kind}, {world} ranks, first, MiB"] = round(results[0], 1)
        figures[f"most memory beyond the model, {kind}, {world} ranks, others, MiB"] = round(max(results[1:]), 1)
    return figures


def saving(rank: int, folder: Path, victim: int, delay: float) -> str:
    """Save in a loop until one is killed. While connections are being made, only the timeout shows a death."""
    checkpointer_module.TIMEOUT = TIMEOUT
    model = together.sharded(Small())
    checkpointer = DetectionCheckpointer(model, folder / "run")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0)
    checkpointer.save("model0", iteration=0)
    if rank == victim:
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
    for iteration in range(1, 10_000):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(iteration)
        error = together.told(lambda i=iteration: checkpointer.save(f"model{i}", iteration=i))
        if error != "no error":
            return error
    return "no error"


def _crashes(root: Path, times: int) -> dict[str, int]:
    generator, saved = random.Random(0), 0
    for index in range(times):
        folder = root / f"saving{index}"
        victim = generator.randrange(2)
        results = launch(saving, 2, folder, victim, generator.uniform(0, 1), victim=victim)
        assert results[victim] == "died"
        assert results[1 - victim].startswith("RankError"), results
        model = Small()
        rest = DetectionCheckpointer(model, folder / "run").resume_or_load("")
        assert all(bool((value == rest["iteration"]).all()) for value in model.parameters())
        saved += rest["iteration"] + 1
    return {"sharded saves killed": times, "sharded saves that were complete": saved}


if __name__ == "__main__":
    _under_torchrun(Path(sys.argv[1]))
