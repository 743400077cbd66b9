"""Load: many keys and large files in the memory of one tensor beyond the model, and many threads at once.

Large files are sparse: of each tensor the first and the last number are written, and the rest are holes.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detrex_backbones import get_config, load_checkpoint
from detrex_backbones.config import LazyConfig

MB = 1 << 20
PAGE = 4096
ROOT = Path(__file__).parents[2]


# ------------------------------------------------------------------------------------------- memory of a load


class Block(nn.Module):
    """A large tensor and a small one, without memory."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(numbers, device="meta"))
        self.bias = nn.Parameter(torch.empty(8, device="meta"))


class Model(nn.Module):
    """So many keys of `size` bytes together, the first of them of `largest` bytes."""

    def __init__(self, keys: int, size: int, largest: int) -> None:
        super().__init__()
        others = keys // 2 - 1
        self.blocks = nn.ModuleList(
            [Block(largest // 4), *(Block((size - largest) // 4 // others) for _ in range(others))]
        )


class Sparse:
    """A file with holes where zeros are written."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for start in range(0, len(view), PAGE):
            page = bytes(view[start : start + PAGE])
            if page.count(0) == PAGE:
                self.file.seek(PAGE, os.SEEK_CUR)
            else:
                self.file.write(page)
        return len(view)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def write_sparse(path: Path, model: nn.Module) -> None:
    """A file for a model: the first number of the nth tensor is n + 1, and the last one is -n - 1."""
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    with tempfile.TemporaryFile() as scratch:  # the pages of a file, so that the zeros take no memory
        zeros = np.memmap(scratch, "float32", "w+", shape=sum(math.prod(shape) for shape in shapes.values()))
        arrays, end = {}, 0
        for index, (name, shape) in enumerate(shapes.items()):
            arrays[name] = zeros[end : end + math.prod(shape)].view(np.ndarray).reshape(shape)
            arrays[name][0], arrays[name][-1] = index + 1, -index - 1
            end += math.prod(shape)
        write_arrays(path, arrays)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """In the format of the extension, sparse."""
    file = Sparse(path)
    if path.suffix == ".pth":
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, file)
    elif path.suffix == ".pkl":
        pickle.dump(arrays, file, protocol=4)
    else:
        header, end = {}, 0
        for name, array in arrays.items():
            header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": (end, end + array.nbytes)}
            end += array.nbytes
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(array)
    file.truncate(file.tell())
    file.close()


def load_and_tell(path: Path, keys: int, size: int, largest: int) -> None:
    """In a child: load when told to, and look at every number."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:  # what is imported at the first load is no part of the second
        small = Path(folder) / f"small{path.suffix}"
        tiny = Model(20, 20_000, 1000).to_empty(device="cpu")
        write_sparse(small, tiny)
        load_checkpoint(tiny, small)
    model = Model(keys, size, largest).to_empty(device="cpu")
    for value in model.state_dict().values():
        value.fill_(0.25)  # so that the kernel has given it its memory before the load
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    report = load_checkpoint(model, path)
    sys.stdout.write("loaded\n")
    sys.stdout.flush()
    sys.stdin.readline()
    assert len(report.loaded) == keys
    for index, value in enumerate(model.state_dict().values()):
        assert (float(value[0]), float(value[-1])) == (index + 1, -index - 1)
        assert int(value.count_nonzero()) == 2


def anonymous(process: int) -> int:
    """Bytes of memory that are no file's."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel doesn't tell RssAnon")


def beyond_the_model(path: Path, keys: int, size: int, largest: int) -> int:
    """The most bytes, of no file, that a load takes at any time beyond those of the model."""
    write_sparse(path, Model(keys, size, largest))
    numbers = [str(number) for number in (keys, size, largest)]
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.soak.load", str(path), *numbers],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        bufsize=0,
    )
    assert child.stdin and child.stdout and child.stdout.readline() == b"ready\n"
    before = most = anonymous(child.pid)
    os.set_blocking(child.stdout.fileno(), False)
    child.stdin.write(b"go\n")
    while not child.stdout.read():
        most = max(most, anonymous(child.pid))
        assert child.poll() is None, "the load failed"
    child.stdin.write(b"look\n")
    assert child.wait(timeout=300) == 0
    return most - before


def write_dense(path: Path, tensors: dict[str, Tensor]) -> None:
    """By its extension."""
    if path.suffix == ".pth":
        torch.save(tensors, path)
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps({name: value.numpy() for name, value in tensors.items()}))
    else:
        from safetensors.torch import save_file

        save_file(tensors, path)


# ----------------------------------------------------------------------------------------------------- threads


def in_threads(folder: Path, configs: list[str], rounds: int, threads: int = 8) -> int:
    """Load configs and checkpoints in many threads at once; each result is that of a load alone. Returns how many."""
    from tests.checkpoint.nets import empty, snapshot, weights

    state = weights(counters=False)
    files = [folder / f"net.{extension}" for extension in ("pth", "pkl", "safetensors")]
    for file in files:
        write_dense(file, state)
    torch.save({"model": state, "iteration": 7}, folder / "in_container.pth")
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    files += [folder / "in_container.pth", folder / "legacy.pth"]

    def config(name: str) -> str:
        return LazyConfig.to_yaml(get_config(name))

    def checkpoint(file: Path) -> tuple[str, int]:
        net = empty()
        report = load_checkpoint(net, file)
        return str(report), hash(tuple(snapshot(net).items()))

    works: list[tuple[Callable[..., Any], Any]] = [(config, name) for name in configs]
    works += [(checkpoint, file) for file in files for _ in range(2)]
    alone = [work(given) for work, given in works]
    order = sorted(range(len(works)), key=lambda index: (index * 7919) % 101)  # configs and checkpoints mixed
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(threads) as pool:
            for _ in range(rounds):
                waiting = [(index, pool.submit(works[index][0], works[index][1])) for index in order]
                for index, future in waiting:
                    assert future.result() == alone[index], works[index][1]
    finally:
        sys.setswitchinterval(usual)
    return rounds * len(works)


def run(gigabytes: float = 4, keys: int = 20_000, rounds: int = 20) -> dict[str, int | float | str]:
    """Everything."""
    from detrex_backbones import list_configs

    torch.set_num_threads(1)
    figures: dict[str, int | float | str] = {"keys": keys, "file, GB": gigabytes}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        largest = 256 * MB
        for extension in ("pth", "safetensors", "pkl"):
            path = folder / f"large.{extension}"
            beyond = beyond_the_model(path, keys, int(gigabytes * 1e9), largest)
            assert beyond <= largest, f"{extension}: {beyond / MB:.0f} MB beyond the model"
            path.unlink()
            figures[f".{extension}: MB beyond the model (its largest tensor: {largest // MB})"] = round(beyond / MB)
        figures["loads in 8 threads, each as alone"] = in_threads(folder, list_configs(), rounds)
    return figures


if __name__ == "__main__":
    load_and_tell(Path(sys.argv[1]), *map(int, sys.argv[2:]))
