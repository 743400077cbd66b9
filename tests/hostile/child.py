"""Loads every file of a folder, in a process that notices whatever else happens: `python -m tests.hostile.child`.

Prints one line of JSON for each file: what came of it, in which time and memory, and what the process was caught at.
"""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import resource
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detrex_backbones import load_checkpoint
from detrex_backbones.config import LazyConfig, instantiate
from detrex_backbones.errors import DetrexBackbonesError
from tests.checkpoint.nets import assert_same_tensors, small_state, snapshot
from tests.checkpoint.test_reading import WRITERS

ALLOW = ("torch.nn.", "collections.OrderedDict")
ROOM = 1 << 30  # bytes of addresses that a file may take before it fails; what it may take of memory is looked at after

# Nothing of this has a place in a load. `exec` and `compile` are what eval, exec and imports come down to.
FORBIDDEN = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile", "os.kill"),
    *("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"),
    *("os.chdir", "os.putenv", "os.unsetenv", "subprocess.Popen", "pty.spawn", "exec", "compile", "import"),
    *("socket.", "urllib.", "ctypes.", "shutil.", "webbrowser.", "marshal.", "pickle.find_class", "code.__new__"),
    *("function.__new__", "builtins.input", "sys.addaudithook", "tempfile."),
)
HOSTS_OWN = ("ctypes.cdata", "ctypes.addressof")  # numpy's and torch's own, which name nothing


class Watch:
    """An audit hook: refuses what is forbidden, and remembers that it was tried."""

    def __init__(self) -> None:
        self.on = False
        self.caught: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        writes = event == "open" and (set(str(arguments[1] or "r")) & set("wax+") or (arguments[2] or 0) & 0o3)
        if writes or (event.startswith(FORBIDDEN) and not event.startswith(HOSTS_OWN)):
            self.caught.append(f"{event} {arguments!r:.80}")
            raise RuntimeError(f"caught at {event}")


class Small(nn.Module):
    """What `small_state` is of, with other weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.Module()
        self.norm.register_buffer("running_var", torch.full((4,), 7.0))
        self.norm.register_buffer("num_batches_tracked", torch.tensor(7))
        with torch.no_grad():
            self.conv.weight.fill_(7)
            self.conv.bias.fill_(7)


def load(path: Path, model: nn.Module) -> None:
    """As a user would; of a config, everything in it is made."""
    if path.suffix == ".yaml":
        instantiate(LazyConfig.load(path).get("model"), allow=ALLOW)
    else:
        load_checkpoint(model, path)


def outcome(path: Path, watch: Watch | None = None) -> str:
    """ "refused", "loaded", or what went wrong."""
    model = Small()
    before = snapshot(model)
    if watch is not None:
        watch.on = True
    try:
        load(path, model)
        found = "loaded"
    except DetrexBackbonesError as error:
        found = "refused" if str(error) else "an error without a message"
    except BaseException as error:
        found = f"{type(error).__name__}: {error}"[:300]
    finally:
        if watch is not None:
            watch.on = False
    if found == "loaded" and path.suffix != ".yaml":
        assert_same_tensors(model.state_dict(), small_state())
    elif snapshot(model) != before:
        found = "the model was changed"
    return found


def memory(name: str) -> int:
    """Bytes, of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name + ":"))


def warm_up(folder: Path) -> None:
    """Load a good and a bad file of each format, so that what is imported late has been imported."""
    for codec in ("ascii", "latin1", "raw_unicode_escape", "unicode_escape", "utf_8"):  # Python's own
        "a".encode(codec)
    for write in WRITERS.values():
        for state in (small_state(), {"other": torch.ones(2)}):
            write(state, folder / "warm")
            outcome(folder / "warm")
    (folder / "warm.yaml").write_text("model: {_target_: torch.nn.Linear, in_features: 1, out_features: evil}")
    outcome(folder / "warm.yaml")


ATTEMPTS: dict[str, Callable[[], Any]] = {
    "a shell": lambda: os.system("true"),
    "a process": lambda: subprocess.Popen(["true"]),
    "code": lambda: eval("1"),
    "a file": lambda: Path("planted").write_text(""),
    "a file without Python's open": lambda: os.open("planted", os.O_CREAT | os.O_WRONLY),
    "a module": lambda: __import__("antigravity"),
    "a connection": lambda: socket.create_connection(("127.0.0.1", 9)),
    "an ordinary pickle": lambda: pickle.loads(b"cos\nsystem\n."),
    "a library": lambda: ctypes.CDLL("libm.so.6"),
}


def attempt(watch: Watch) -> None:
    """Do what no file may do, and tell whether it was noticed."""
    for name, evil in ATTEMPTS.items():
        watch.on = True
        try:
            evil()
        except RuntimeError:
            pass
        finally:
            watch.on = False
        tell(attempt=name, caught=watch.caught)
        watch.caught.clear()


def tell(**figures: Any) -> None:
    """To whoever started this process, before the next file may end it."""
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


def main(corpus: Path, scratch: Path) -> None:
    """Load all files in `corpus`; `scratch` may be written to before the watch begins."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    warm_up(scratch)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    watch = Watch()
    attempt(watch)
    for path in sorted(corpus.iterdir()):
        room = memory("VmSize") + path.stat().st_size + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))
        Path("/proc/self/clear_refs").write_text("5")  # forgets the highest memory so far
        held, start = memory("VmRSS"), time.process_time()
        tell(file=path.name)
        found = outcome(path, watch)
        seconds, taken = time.process_time() - start, memory("VmHWM") - held
        size = path.stat().st_size if path.is_file() else 0
        tell(file=path.name, size=size, outcome=found, seconds=seconds, bytes=taken, caught=watch.caught)
        watch.caught.clear()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
