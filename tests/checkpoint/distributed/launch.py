"""Starting the processes of a test: each calls one function, and what it returns comes back."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

LIMIT = 240  # seconds; only a hang takes as long


def launch(function: Callable[..., Any], world: int, folder: Path, *args: Any, victim: int | None = None) -> list[Any]:
    """What `function(rank, folder, *args)` returns on each of so many ranks; "died" for one that was killed.

    Each starts in a folder of its own, `folder/rank0` and so on, so that a file there is seen by it alone. A victim is
    one that needn't come to an end: it is killed once the others have.
    """
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_rank, args=(function, rank, world, folder, args), daemon=True) for rank in range(world)
    ]
    for process in processes:
        process.start()
    results: list[Any] = [None] * world
    for rank, process in sorted(enumerate(processes), key=lambda pair: pair[0] == victim):
        process.join(0 if rank == victim else LIMIT)
        hung = process.is_alive()
        if hung:
            process.kill()
            process.join()
        file = folder / f"result{rank}"
        ended = pickle.loads(file.read_bytes()) if file.exists() else "died"
        results[rank] = "hung" if hung and rank != victim else ended
    failures = [result for result in results if isinstance(result, str) and result.startswith("Traceback")]
    assert not failures, "\n".join(failures)
    return results


def _rank(function: Callable[..., Any], rank: int, world: int, folder: Path, args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    own = folder / f"rank{rank}"
    own.mkdir(exist_ok=True)
    os.chdir(own)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    try:
        result = function(rank, folder, *args)
    except Exception:
        result = traceback.format_exc()
    (folder / "partial").mkdir(exist_ok=True)
    (folder / "partial" / str(rank)).write_bytes(pickle.dumps(result))
    (folder / "partial" / str(rank)).rename(folder / f"result{rank}")
    os._exit(0)  # without the goodbyes of a group of which others may be dead
