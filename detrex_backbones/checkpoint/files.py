"""From a path to the weights that are stored there, and what is beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from detrex_backbones.checkpoint.fetch import resolve
from detrex_backbones.checkpoint.read import Call, LazyTensor, Name, as_lazy, find_weights, load_tensors, open_content
from detrex_backbones.checkpoint.read.content import named, reading
from detrex_backbones.checkpoint.read.nested import put_in, take_out
from detrex_backbones.checkpoint.read.weights import extra_states, tensors_in, versions
from detrex_backbones.errors import CheckpointFileError
from detrex_backbones.text import visible

__all__ = ["Checkpoint", "load_values", "open_checkpoint", "read_checkpoint"]


@dataclass
class Checkpoint:
    """The weights of one file.

    Args:
        path: where it was read.
        format: "torch", "torch-legacy", "pickle", "safetensors", "npz" or "dcp".
        container: the key that the weights stood under, "" for the top level.
        tensors: name -> tensor, on the CPU, in memory of its own. While a file is open: where its bytes are.
        extra: what else is stored beside the weights: optimiser, iteration, author. Objects of classes that are not
            known stay inert records, see `read.Call`.
        unread: name -> what it is, for tensors whose values are not plainly in the file: quantised or sparse ones.
        states: name -> plain data, of modules that keep more than tensors (`get_extra_state`).
        metadata: path of a module -> what its loading code is told: the version that it was saved by.
    """

    path: Path
    format: str
    container: str
    tensors: Mapping[str, Tensor | LazyTensor]
    extra: dict[str, Any] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    states: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)


def read_checkpoint(path: str | Path, container: str | None = None) -> Checkpoint:
    """Read a checkpoint of any supported format; nothing in it is run.

    Its tensors own their memory: the file may be changed or removed afterwards, and they may be saved over it.

    Args:
        path: the file, or a name or URL of it: "torchvision://resnet50-v2", see `resolve`.
        container: the key that the weights stand under; None to find it.

    Raises:
        CheckpointFileError: a file that is missing, empty, cut, damaged or holds no tensors; an unknown name.
    """
    with open_checkpoint(path, container) as found, reading(found.path, found.format):
        structure, stored = take_out(found.extra)
        # In one call, so that what shares a storage in the file shares it here.
        values = iter(load_tensors([*map(as_lazy, found.tensors.values()), *stored.values()]))
    tensors = {name: next(values) for name in found.tensors}
    extra = put_in(structure, {name: next(values) for name in stored})
    return replace(found, tensors=tensors, extra=extra)


@contextmanager
def open_checkpoint(path: str | Path | Mapping[str, Any], container: str | None = None) -> Iterator[Checkpoint]:
    """`read_checkpoint` without the values: these can be loaded as long as the file is open.

    A mapping is taken as the content of a file: `model.state_dict()`, or what `torch.load` gave.
    """
    if isinstance(path, Mapping):
        yield _given(path, container)
        return
    path = resolve(path)
    with open_content(path) as content:
        value = content.value
        if not isinstance(value, Mapping):
            raise CheckpointFileError(
                f"{named(path)} holds a {_kind_of(value)}. Expected a mapping of names to tensors.{_cure(value)}"
            )
        found = find_weights(value, container)
        if found is None:
            where = f"under {visible(repr(container))}" if container else "in any place that trainers put them"
            raise CheckpointFileError(f"{named(path)} holds no tensors {where}. It has: {_summary(value)}.")
        key, weights = found
        tensors, unread = tensors_in(weights)
        extra = {str(name): item for name, item in value.items() if key and name != key}
        yield Checkpoint(path, content.format, key, tensors, extra, unread, extra_states(weights), versions(weights))


def _given(content: Mapping[str, Any], container: str | None) -> Checkpoint:
    found = find_weights(content, container)
    if found is None:
        raise CheckpointFileError(f"the mapping holds no tensors. It has: {_summary(content)}.")
    key, weights = found
    on_cpu = {name: value.detach().cpu() if isinstance(value, Tensor) else value for name, value in weights.items()}
    tensors, unread = tensors_in(on_cpu)
    return Checkpoint(Path("a mapping"), "mapping", key, tensors, {}, unread, extra_states(weights), versions(weights))


def load_values(checkpoint: Checkpoint, wanted: Mapping[str, Any], *, owned: bool = True) -> dict[str, Tensor]:
    """Read the values of some tensors of an open checkpoint; see `read.load_tensors`.

    Raises:
        CheckpointFileError: a checksum is wrong, or the file has become shorter.
    """
    with reading(checkpoint.path, checkpoint.format):
        return dict(zip(wanted, load_tensors(wanted.values(), owned=owned), strict=True))


def _summary(content: Mapping[Any, Any]) -> str:
    shown = [f"{visible(repr(key))}: {_kind_of(value)}" for key, value in list(content.items())[:6]]
    return ", ".join(shown) + (f" and {len(content) - 6} more" if len(content) > 6 else "") if shown else "nothing"


def _kind_of(value: Any) -> str:
    if isinstance(value, Call) and isinstance(value.function, Name):
        return visible(value.function.name)
    return "Tensor" if isinstance(value, LazyTensor) else type(value).__name__


def _cure(value: Any) -> str:
    if not isinstance(value, Call):
        return ""
    return (
        " If it is a whole module that you trust, make weights of it: "
        "torch.save(torch.load('file.pth', weights_only=False).state_dict(), 'weights.pth')"
    )
