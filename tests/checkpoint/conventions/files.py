"""Files as each source writes them, and what every load of one must account for."""

from __future__ import annotations

import argparse
import io
import pickle
import struct
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detrex_backbones.checkpoint.load import load_checkpoint
from detrex_backbones.checkpoint.report import LoadReport
from tests.reference import assert_close

# What a reason must not be: that nobody knows.
UNKNOWN = ("no place in the model", "no name of")


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes as Python 2 wrote its `str`."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_string(self, value: str | bytes) -> None:
        data = value.encode("latin1") if isinstance(value, str) else value
        short = len(data) < 256
        self.write(b"U" + bytes([len(data)]) + data if short else b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[str] = save_string
    dispatch[bytes] = save_string


def write_python2_pickle(path: Path, content: Any) -> Path:
    """A pickle of protocol 2 whose tensors are arrays and whose names are bytes."""
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(_as_arrays(content))
    path.write_bytes(buffer.getvalue())
    return path


def write_torch(path: Path, content: Any, legacy: bool = False) -> Path:
    """A torch file, in the old container if `legacy`, as OpenMMLab publishes."""
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def write_mmengine(path: Path, state: Mapping[str, Tensor], **more: Any) -> Path:
    """What mmengine saves: beside the weights an object of a class that isn't installed here."""
    name = "mmengine.logging.history_buffer"
    module = types.ModuleType(name)
    buffer_class = type("HistoryBuffer", (), {"__module__": name})
    module.HistoryBuffer = buffer_class
    modules = {"mmengine": types.ModuleType("mmengine"), "mmengine.logging": types.ModuleType("logging"), name: module}
    sys.modules.update(modules)
    try:
        hub = buffer_class()
        hub.values = np.arange(3.0)
        meta = {"epoch": 12, "loss": np.float64(0.5)}
        content = {"meta": meta, "state_dict": dict(state), "message_hub": {"log_scalars": {"loss": hub}}, **more}
        return write_torch(path, content, legacy=True)
    finally:
        for key in modules:
            del sys.modules[key]


def write_timm_training(path: Path, state: Mapping[str, Tensor], averaged: Mapping[str, Tensor]) -> Path:
    """What timm's training script saves: its arguments are an `argparse.Namespace`."""
    args = argparse.Namespace(lr=0.1, model="resnet18")
    content = {"epoch": 3, "arch": "resnet18", "state_dict": dict(state), "state_dict_ema": dict(averaged)}
    return write_torch(path, {**content, "args": args, "version": 2, "metric": 71.5, "optimizer": {"state": {}}})


def write_lightning(path: Path, state: Mapping[str, Tensor], attribute: str) -> Path:
    """What Lightning saves: names begin with the attribute that holds the network."""
    named = {f"{attribute}.{key}": value for key, value in state.items()}
    more = {"epoch": 1, "global_step": 10, "pytorch-lightning_version": "2.2.0", "loops": {}, "callbacks": {}}
    return write_torch(path, {"state_dict": named, "optimizer_states": [], "hyper_parameters": {"lr": 0.1}, **more})


def prefixed(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The same tensors with something before each name."""
    return {prefix + key: value for key, value in state.items()}


def without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors as the norms of before 2018 had them."""
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def load(model: nn.Module, path: Path, known: bool = True, **kwargs: Any) -> LoadReport:
    """Load, and look whether every tensor of the file is accounted for.

    Args:
        model: changed in place.
        path: of the file.
        known: whether every reason must say what a tensor is, not only that the model has no place for it.
        **kwargs: of `load_checkpoint`.
    """
    report = load_checkpoint(model, path, **kwargs)
    keys = set(stored_keys(path, report.container))
    loaded = [item.checkpoint_key for item in report.loaded if not item.adapted.startswith("not in the file")]
    assert set(loaded) | set(report.left_over) == keys
    assert not set(loaded) & set(report.left_over)
    assert len(set(loaded)) == len(loaded)
    assert all(report.left_over.values())
    assert not known or not {key: why for key, why in report.left_over.items() if why.startswith(UNKNOWN)}
    assert not report.missing and not report.mismatched
    return report


def stored_keys(path: Path, container: str) -> list[str]:
    """The names of the tensors in a file, read by the very reader; that has tests of its own."""
    from detrex_backbones.checkpoint.files import read_checkpoint

    return list(read_checkpoint(path, container or None).tensors)


def assert_same(ours: Mapping[str, Tensor] | list[Tensor], theirs: Mapping[str, Tensor] | list[Tensor]) -> None:
    """As many maps, equal in their order or by their names."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for name, value in ours.items():
            assert_close(value, theirs[name])
        return
    ours, theirs = (list(maps.values()) if isinstance(maps, Mapping) else list(maps) for maps in (ours, theirs))
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other)


def _as_arrays(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _as_arrays(value) for key, value in content.items()}
    return content.numpy() if isinstance(content, Tensor) else content
