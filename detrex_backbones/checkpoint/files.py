"""From a path to the weights that are stored there, and what is beside them."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor, nn

from detrex_backbones.checkpoint.fetch import resolve
from detrex_backbones.checkpoint.read import (
    Call,
    Content,
    LazyTensor,
    Name,
    OtherTensor,
    as_lazy,
    find_weights,
    load_tensors,
    open_content,
)
from detrex_backbones.checkpoint.read.content import content_of_bytes, named, reading
from detrex_backbones.checkpoint.read.module_states import extra_states, versions
from detrex_backbones.checkpoint.read.nested import put_in, take_out
from detrex_backbones.checkpoint.read.source import DamagedError
from detrex_backbones.checkpoint.read.weights import DEPTH, Weights, tensors_in, without
from detrex_backbones.checkpoint.report import choices
from detrex_backbones.errors import ArgumentError, CheckpointFileError, CheckpointMatchError
from detrex_backbones.text import visible

__all__ = ["Checkpoint", "Given", "load_values", "only", "open_checkpoint", "read_checkpoint"]

IN_MEMORY = "mapping"
DEEPER = 20  # mappings in one another that are looked through for an error


@dataclass
class Checkpoint:
    """The weights of one file.

    Args:
        path: where it was read.
        format: "torch", "torch-legacy", "pickle", "safetensors", "npz" or "dcp"; "mapping" for what was in memory.
        container: the keys that lead to the weights, with dots between them: "model", "ema.module", "models.0"; "" for
            the top level.
        tensors: name -> tensor, on the CPU, in memory of its own. While a file is open: where its bytes are.
        extra: what else is stored beside the weights: optimiser, iteration, author. Objects of classes that are not
            known stay inert records, see `read.Call`.
        special: those whose values are not plainly in the file: quantised or sparse ones.
        states: name -> plain data, of modules that keep more than tensors (`get_extra_state`).
        metadata: path of a module -> what its loading code is told: the version that it was saved by.
        rank: of several weights that fit, those of the lowest rank are taken.
        others: the other weights of the file, while it is open.
    """

    path: Path
    format: str
    container: str
    tensors: Mapping[str, Tensor | LazyTensor]
    extra: dict[str, Any] = field(default_factory=dict)
    special: Mapping[str, OtherTensor] = field(default_factory=dict)
    states: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    rank: int = 0
    others: tuple[Checkpoint, ...] = ()

    @property
    def unread(self) -> dict[str, str]:
        """Name -> what it is, of each of `special`."""
        return {name: tensor.unread for name, tensor in self.special.items()}


Given = str | os.PathLike[str] | BinaryIO | Mapping[str, Any] | Checkpoint
"""What weights are read from; see `load_checkpoint`."""
ALLOWED = (
    "a path, a URL or the name of known weights; an open binary file or io.BytesIO; a mapping of names to tensors; a "
    "Checkpoint, as read_checkpoint returns it"
)


def read_checkpoint(path: Given, container: str | None = None) -> Checkpoint:
    """Read a checkpoint of any supported format; nothing in it is run.

    Its tensors own their memory: the file may be changed or removed afterwards, and they may be saved over it.

    Args:
        path: the file, or a name or URL of it: "torchvision://resnet50-v2", see `resolve`; an open binary file, read
            from where it stands, or a mapping.
        container: the keys that lead to the weights, with dots between them: "ema.module"; None to find them.

    Raises:
        CheckpointFileError: a file that is missing, empty, cut, damaged or holds no tensors; an unknown name; several
            weights in it, none of which comes first.
        ArgumentError: something that no weights are read from.
    """
    with open_checkpoint(path, container) as opened, reading(opened.path, opened.format):
        most = max(len(each.tensors) for each in (opened, *opened.others))
        found = only(opened, lambda each: 2 * len(each.tensors) > most)  # the others are losses, metrics, a head
        structure, stored = take_out(found.extra)
        # In one call, so that what shares a storage in the file shares it here.
        loaded = load_tensors([*map(as_lazy, found.tensors.values()), *map(as_lazy, stored.values())])
        values = iter(copy.deepcopy(loaded) if found.format == IN_MEMORY else loaded)
    tensors = {name: next(values) for name in found.tensors}
    extra = put_in(structure, {name: next(values) for name in stored})
    return replace(found, tensors=tensors, extra=extra, others=())


@contextmanager
def open_checkpoint(path: Given, container: str | None = None) -> Iterator[Checkpoint]:
    """`read_checkpoint` without the values: these can be loaded as long as the file is open.

    Where there are several weights in it, this gives those that come first, and the `others`.
    """
    if isinstance(path, Checkpoint):
        yield _checked(path, container)
        return
    with _content_of(path) as (where, content):
        found = find_weights(content.value, None if container is None else str(container))
        if not found:
            raise _nothing(where, content, container)
        each = [_of(where, content, weights) for weights in found]
        yield replace(each[0], others=tuple(each[1:]))


def only(checkpoint: Checkpoint, fits: Callable[[Checkpoint], object]) -> Checkpoint:
    """Of the weights in a file those that fit; the first where none does.

    Args:
        checkpoint: the weights that come first, and the `others`.
        fits: whether some do; a CheckpointMatchError says no.

    Raises:
        CheckpointFileError: several do, and none of them comes first.
    """
    if not checkpoint.others:
        return checkpoint
    fitting = []
    for each in (checkpoint, *checkpoint.others):
        with suppress(CheckpointMatchError):
            fitting += [each] if fits(each) else []
    fitting = fitting or [checkpoint]
    first = [each for each in fitting if each.rank == fitting[0].rank]
    if len(first) > 1:
        raise CheckpointFileError(
            f"{_named(checkpoint.path, checkpoint.format)} holds {len(first)} sets of weights. Say which: "
            f"{choices([each.container for each in first])}."
        )
    return first[0]


@contextmanager
def _content_of(given: Any) -> Iterator[tuple[Path, Content]]:
    """What is stored in whatever can be read, and how it is called."""
    if isinstance(given, Mapping):
        yield Path("a mapping"), Content(given, IN_MEMORY)
    elif isinstance(given, str | os.PathLike):
        path = resolve(given)
        with open_content(path) as content:
            yield path, content
    elif callable(getattr(given, "read", None)):
        name = getattr(given, "name", None)
        path = Path(name if isinstance(name, str) else "an open file")
        yield path, content_of_bytes(path, _bytes_of(given, path))
    else:
        raise ArgumentError(
            f"weights can't be read from an object of type {type(given).__name__}. Allowed: {ALLOWED}.{_instead(given)}"
        )


def _bytes_of(file: Any, path: Path) -> bytes:
    """What is in an open file from where it stands."""
    try:
        data = file.read()
        place = 0 if data or not file.seekable() else file.tell()
    except (OSError, ValueError) as error:
        raise CheckpointFileError(f"{named(path)} can't be read: {error}. Open it: open(path, 'rb').") from error
    if isinstance(data, str):
        raise CheckpointFileError(f"{named(path)} is open as text. Open it as bytes: open(path, 'rb').")
    if place:
        raise CheckpointFileError(f"{named(path)} is at its end, byte {place}. Go back first: file.seek(0).")
    return bytes(data)


def _instead(given: Any) -> str:
    if isinstance(given, nn.Module):
        return " Of a module: module.state_dict()."
    return " Of bytes: io.BytesIO(data)." if isinstance(given, bytes | bytearray | memoryview) else ""


def _checked(checkpoint: Checkpoint, container: str | None) -> Checkpoint:
    """A checkpoint that was read before, if it is the one that is asked for."""
    if container is not None and str(container) != checkpoint.container:
        raise ArgumentError(
            f"container={container!r}: this Checkpoint was read with container={checkpoint.container!r}. Read it "
            f"again: read_checkpoint(..., container={container!r})."
        )
    return checkpoint


def _of(path: Path, content: Content, weights: Weights) -> Checkpoint:
    try:
        tensors, special = tensors_in(weights.mapping)
    except DamagedError as error:
        raise CheckpointFileError(
            f"{_named(path, content.format)} can't be read by names: {error}. Give each tensor a name of its own."
        ) from error
    extra = without(content.value, weights.steps)
    extra = extra if isinstance(extra, dict) else {str(place): item for place, item in enumerate(extra)}
    states, metadata = extra_states(weights.mapping), versions(weights.mapping)
    where = (path, content.format, weights.container)
    return Checkpoint(*where, tensors, extra, special, states, metadata, weights.rank)


def _nothing(path: Path, content: Content, container: str | None) -> CheckpointFileError:
    """The error of a file without weights, or without any where they are said or expected to be."""
    name, value = _named(path, content.format), content.value
    where = [weights.container for weights in find_weights(value, depth=DEEPER)]
    if where:
        asked = f"under container={str(container)!r}" if container else f"in its first {DEPTH} levels"
        return CheckpointFileError(f"{name} has no weights {asked}. It has some elsewhere: {choices(where)}.")
    if not isinstance(value, Mapping):
        return CheckpointFileError(
            f"{name} holds a {_kind_of(value)}. Expected a mapping of names to tensors.{_cure(value)}"
        )
    return CheckpointFileError(
        f"{name} holds no tensors in any place that trainers put them. It has: {_summary(value)}."
    )


def _named(path: Path, format: str) -> str:
    return f"the {path.name.partition(' ')[2]}" if format == IN_MEMORY else named(path)


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
