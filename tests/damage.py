"""Files that were cut, and files with a flipped byte: what becomes of each."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp

from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.config import LazyConfig
from detrex_backbones.errors import CheckpointFileError, ConfigError
from tests.checkpoint.nets import arrays, raw, small_state
from tests.checkpoint.test_reading import write_legacy, write_pickle, write_safetensors, write_zip
from tests.reference import noise

CUTS, FLIPS = 64, 256
REFUSED, EQUAL, OTHER = "refused", "equal", "other values"

YAML = "model:\n  _target_: torch.nn.Conv2d\n  in_channels: 3\n  kernel_size: [7, 7]\ntrain: {lr: 1e-4, name: 'a b'}\n"
PYTHON = "depth = 50\nmodel = dict(name='net', depth=depth, norm='FrozenBN', sizes=[1, 2.5])\ntrain = dict(lr=1e-4)\n"


def state() -> dict[str, torch.Tensor]:
    """Small tensors and one that is larger than a page."""
    return {**small_state(), "fc.weight": noise(40, 50, seed=4)}


def write_folder(content: dict[str, Any], path: Path) -> None:
    """A folder as torch.distributed.checkpoint writes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this is a single process
        dcp.save(content, checkpoint_id=path)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "torch": lambda path: write_zip({"model": state(), "iteration": 7}, path),
    "torch-legacy": lambda path: write_legacy({"model": state(), "iteration": 7}, path),
    "pickle of arrays": lambda path: write_pickle({"model": arrays(state()), "iteration": 7}, path),
    "pickle of tensors": lambda path: write_pickle({"model": state(), "iteration": 7}, path),
    "pickle of protocol 2": lambda path: write_pickle({"model": arrays(state())}, path, 2),
    "safetensors": lambda path: write_safetensors(state(), path),
    "dcp table": lambda path: write_folder({"model": state(), "iteration": 7}, path),
    "dcp pieces": lambda path: write_folder({"model": state(), "iteration": 7}, path),
    "config.yaml": lambda path: path.write_text(YAML),
    "config.py": lambda path: path.write_text(PYTHON),
}

DAMAGED = {"dcp table": ".metadata", "dcp pieces": "__0_0.distcp"}  # of a folder


def read(path: Path) -> dict[str, Any]:
    """What can be compared: bytes of weights, or a config's text."""
    if path.suffix in (".yaml", ".py"):
        return {"config": LazyConfig.to_yaml(LazyConfig.load(path))}
    return {
        name: (tensor.dtype, tuple(tensor.shape), raw(tensor)) for name, tensor in read_checkpoint(path).tensors.items()
    }


def cuts(data: bytes) -> Iterator[bytes]:
    """Evenly over the file; the first and the last leave one byte, and cut one off."""
    for index in range(CUTS):
        yield data[: 1 + round(index * (len(data) - 2) / (CUTS - 1))]


def flips(data: bytes, seed: int) -> Iterator[bytes]:
    """One byte anywhere, changed in one bit or several."""
    chance = random.Random(seed)
    for _ in range(FLIPS):
        changed = bytearray(data)
        changed[chance.randrange(len(data))] ^= chance.randrange(1, 256)
        yield bytes(changed)


def outcomes(kind: str, folder: Path, seed: int) -> dict[str, Counter[str]]:
    """How many of the cut and of the flipped files are refused, are read as they were, or as something else."""
    path = folder / kind
    WRITERS[kind](path)
    whole = read(path)
    file = path / DAMAGED[kind] if kind in DAMAGED else path
    data = file.read_bytes()
    found = {}
    for damage, files in {"cut": cuts(data), "flipped": flips(data, seed)}.items():
        found[damage] = Counter(outcome(path, content, whole, file) for content in files)
    return found


def outcome(path: Path, content: bytes, whole: dict[str, Any], file: Path | None = None) -> str:
    """What becomes of this content, of the path itself or of a file in it; any error but ours comes through."""
    (file or path).write_bytes(content)
    try:
        return EQUAL if read(path) == whole else OTHER
    except (CheckpointFileError, ConfigError):
        return REFUSED
