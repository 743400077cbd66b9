"""Reads every file of a folder, ours and torch's reader, in a process that sees what else happens.

`python -m tests.fuzz.child FOLDER FIRST` prints one line of JSON for each file from the number FIRST on.
"""

from __future__ import annotations

import logging
import resource
import sys
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import torch

from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.errors import CheckpointFileError
from tests.checkpoint.nets import raw, small_state
from tests.checkpoint.test_reading import WRITERS
from tests.hostile.child import ROOM, Watch, attempt, memory, tell


def warm_up(folder: Path) -> None:
    """So that what Python imports late, its own codecs among it, has been imported."""
    for codec in ("ascii", "latin1", "raw_unicode_escape", "unicode_escape", "utf_8"):
        "a".encode(codec)
    for write in WRITERS.values():
        for state in (small_state(), {"other": torch.ones(2)}):
            write(state, folder / "warm")
            ours(folder / "warm", None)
            theirs(folder / "warm")


class Counter:
    """How often anything is called, of Python or of C."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        self.calls += event in ("call", "c_call")


def ours(path: Path, watch: Watch | None) -> tuple[dict[str, Any] | None, str, int, int]:
    """The tensors, or why there are none; and what it took: calls, and bytes at most."""
    counter, found, why = Counter(), None, ""
    tracemalloc.start()
    sys.setprofile(counter)
    try:
        if watch is not None:
            watch.on = True
        checkpoint = read_checkpoint(path)
        found = {**dict(checkpoint.extra), checkpoint.container: dict(checkpoint.tensors)}
        found = found if checkpoint.container else dict(checkpoint.tensors)
    except CheckpointFileError as error:
        why = str(error).partition(str(path))[2] or "an error without its file"
    except BaseException as error:
        why = f"NOT OURS: {type(error).__name__}: {error}"[:300]
    finally:
        if watch is not None:
            watch.on = False
        sys.setprofile(None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return found, why, counter.calls, peak


def theirs(path: Path) -> Any:
    """What torch reads; None where it refuses."""
    try:
        return torch.load(path, weights_only=True)
    except Exception:
        return None


def differences(found: Any, expected: Any, where: str = "", seen: set[tuple[int, int]] | None = None) -> list[str]:
    """Where tensors that both have are not the same. Of what stands in several places, once."""
    seen = set() if seen is None else seen
    if (id(found), id(expected)) in seen:
        return []
    seen.add((id(found), id(expected)))
    if isinstance(expected, torch.Tensor) and isinstance(found, torch.Tensor):
        same = (found.shape, found.dtype) == (expected.shape, expected.dtype)
        return [] if same and raw(found) == raw(expected.resolve_conj().resolve_neg()) else [where]
    if isinstance(expected, dict) and isinstance(found, dict):
        # Keys that are neither text nor numbers (torch gives functions) are records here.
        plain = [(key, value) for key, value in expected.items() if isinstance(key, str | int | float | bytes)]
        pairs = [(str(key), found.get(key, found.get(str(key))), value) for key, value in plain]
    elif isinstance(expected, list | tuple) and isinstance(found, list | tuple):
        pairs = [(str(index), one, value) for index, (one, value) in enumerate(zip(found, expected, strict=False))]
    else:
        return [where] if isinstance(expected, torch.Tensor) and expected.layout is torch.strided else []
    return [place for key, one, value in pairs for place in differences(one, value, f"{where}.{key}", seen)]


def main(folder: Path, first: int) -> None:
    """Read them all; what comes before torch's reading is told first, since that may end the process."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    warm_up(folder.parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    watch = Watch()
    attempt(watch)
    room = memory("VmSize") + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))
    for path in sorted(folder.iterdir())[first:]:
        tell(begun=path.name)
        found, why, calls, peak = ours(path, watch)
        size = path.stat().st_size
        tell(file=path.name, why=why, calls=calls, bytes=peak, size=size, caught=watch.caught)
        watch.caught.clear()
        if path.name.partition(" ")[2].rpartition(" ")[2] in ("torch", "torch-legacy"):
            expected = theirs(path)
            wrong = differences(found, expected) if found is not None and expected is not None else []
            tell(compared=path.name, accepted=expected is not None, wrong=wrong)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
