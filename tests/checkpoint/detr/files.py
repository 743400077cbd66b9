"""Fake files of the DETR family, stub models with detrex's names, and the comparison of what was loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detrex_backbones.checkpoint.load import load_checkpoint
from detrex_backbones.checkpoint.report import LoadReport
from tests.checkpoint.detr.detectors import Entry

Shapes = Mapping[str, tuple[int, ...]]


def tree(shapes: Shapes) -> nn.Module:
    """A module with these parameters and buffers, all NaN: whatever is not loaded shows."""
    root = nn.Module()
    for name, shape in shapes.items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        value = torch.full(shape, float("nan"))
        if leaf in ("running_mean", "running_var", "empty_weight"):
            module.register_buffer(leaf, value)
        else:
            module.register_parameter(leaf, nn.Parameter(value))
    return root


def model_of(entries: Iterable[Entry], **extra: tuple[int, ...]) -> nn.Module:
    return tree(
        {entry.ours: entry.our_shape for entry in entries} | {k.replace("__", "."): s for k, s in extra.items()}
    )


def random_tensors(entries: Iterable[Entry]) -> dict[str, Tensor]:
    """Random values under the original's names. Heads under `transformer.decoder` are those that stand at the top."""
    generator = torch.Generator().manual_seed(0)
    tensors = {entry.theirs: torch.randn(entry.shape, generator=generator) for entry in entries}
    for name in tensors:
        top = name.removeprefix("transformer.decoder.")
        if "_embed." in top and top in tensors:
            tensors[name] = tensors[top]
    return tensors


def share_heads(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One head for all decoder layers, under six names: Deformable DETR without refinement."""
    return {
        name: tensors[".".join([head, "0", *rest])]
        if (head := name.split(".")[0]) in ("class_embed", "bbox_embed") and (rest := name.split(".")[2:])
        else tensor
        for name, tensor in tensors.items()
    }


def wanted(entries: Iterable[Entry], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What detrex's model is to hold: each tensor, or the rows of it that are kept, one by one."""
    return {
        entry.ours: tensors[entry.theirs]
        if entry.rows is None
        else torch.stack([tensors[entry.theirs][row] for row in entry.rows])
        for entry in entries
    }


def save(path: Path, tensors: Mapping[str, Tensor], **others: Any) -> Path:
    torch.save({"model": dict(tensors), **others}, path)
    return path


def load_and_compare(
    model: nn.Module, path: Path, expected: Mapping[str, Tensor], keys: Iterable[str], **kwargs: Any
) -> LoadReport:
    """Load, and assert that every tensor has the expected bytes and every key of the file is accounted for."""
    report = load_checkpoint(model, path, **kwargs)
    state = model.state_dict()
    for name, tensor in expected.items():
        assert state[name].numpy().tobytes() == tensor.contiguous().numpy().tobytes(), name
    assert {item.model_key for item in report.loaded} == set(expected)
    assert not report.missing
    assert not report.mismatched
    assert_accounted(report, keys)
    return report


def assert_accounted(report: LoadReport, keys: Iterable[str]) -> None:
    """Each key of the file was loaded, or left over with a reason; none both."""
    used = [item.checkpoint_key for item in report.loaded]
    assert sorted([*used, *report.left_over]) == sorted(keys)
    assert all(report.left_over.values())


def snapshot(model: nn.Module) -> list[bytes]:
    return [tensor.numpy().tobytes() for tensor in model.state_dict().values()]


def rename(tensors: Mapping[str, Tensor], *prefixes: Sequence[str]) -> dict[str, Tensor]:
    """Names with another beginning: (old, new) pairs, the first that fits."""
    renamed = {}
    for name, tensor in tensors.items():
        old, new = next(((old, new) for old, new in prefixes if name.startswith(old)), ("", ""))
        renamed[new + name[len(old) :]] = tensor
    return renamed
