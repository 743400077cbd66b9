"""From a path to what is stored there, safely. The reader is chosen by content, never by extension."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detrex_backbones.checkpoint import dcp, unpickler
from detrex_backbones.checkpoint.checksum import checked_archive
from detrex_backbones.checkpoint.containers import find_weights, is_tensor
from detrex_backbones.checkpoint.content import HEAD, format_of
from detrex_backbones.checkpoint.fetch import resolve
from detrex_backbones.errors import CheckpointFileError

__all__ = ["Checkpoint", "read_checkpoint", "read_file"]

READABLE = (
    "a torch file (.pth, .pt, .bin), a pickle of arrays or tensors (.pkl), .safetensors, "
    "or a folder of torch.distributed.checkpoint"
)


@dataclass
class Checkpoint:
    """The weights of one file.

    Args:
        path: where it was read.
        format: "torch", "torch-legacy", "pickle", "safetensors" or "dcp".
        container: the key that the weights stood under, "" for the top level.
        tensors: name -> tensor, on the CPU; possibly mapped from the file, so not to be written to.
        extra: what else is stored beside the weights: optimiser, iteration, author.
    """

    path: Path
    format: str
    container: str
    tensors: dict[str, Tensor]
    extra: dict[str, Any] = field(default_factory=dict)


def read_checkpoint(path: str | Path, container: str | None = None) -> Checkpoint:
    """Read a checkpoint of any supported format; nothing in it is run.

    Args:
        path: the file, or a name or URL of it: "torchvision://resnet50-v2", see `resolve`.
        container: the key that the weights stand under; None to find it.

    Raises:
        CheckpointFileError: a file that is missing, a folder, empty, cut, or holds no tensors; an unknown name.
    """
    path = resolve(path)
    content, kind = read_file(path)
    if not isinstance(content, Mapping):
        raise CheckpointFileError(
            f"checkpoint {str(path)!r} holds a {type(content).__name__}. Expected a mapping of names to tensors."
        )
    found = find_weights(content, container)
    if found is None:
        where = f"under {container!r}" if container else "in any place that trainers put them"
        raise CheckpointFileError(f"checkpoint {str(path)!r} holds no tensors {where}. It has: {_summary(content)}.")
    key, weights = found
    tensors = {str(name): _as_tensor(value, name, path) for name, value in weights.items() if is_tensor(value)}
    extra = {str(name): value for name, value in content.items() if key and name != key}
    return Checkpoint(path, kind, key, tensors, extra)


def read_file(path: str | Path) -> tuple[Any, str]:
    """What is stored in a file, and the name of its format; see `read_checkpoint`."""
    path = Path(path)
    kind = "dcp" if dcp.is_folder(path) else _format(path, _head(path))
    try:
        return _own_methods(READERS[kind](path)), kind
    except Exception as error:  # what a damaged file sets off in a reader is not foreseeable
        reason = " ".join(str(error).split())[:200]
        raise CheckpointFileError(
            f"checkpoint {str(path)!r} can't be read as {kind}: {type(error).__name__}: {reason}. "
            f"Is it whole? Compare its size and hash with the source's, or fetch it again."
        ) from error


def _own_methods(content: Any) -> Any:
    """The content, whose dicts look up nothing that the file has set on them: a pickle may plant an `items`."""
    for mapping in (content, *(dict.values(content) if isinstance(content, dict) else ())):
        if isinstance(mapping, dict) and type(mapping) is not dict:
            planted = getattr(mapping, "__dict__", {})  # a defaultdict has none
            for name in [name for name in planted if name != "_metadata"]:  # that of torch's state dicts
                del planted[name]
    return content


def _head(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            reason = "is a folder" if path.is_dir() else "is no ordinary file"
        else:
            with path.open("rb") as file:
                return file.read(HEAD)
    except FileNotFoundError:
        reason = "does not exist"
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = f"can't be opened: {getattr(error, 'strerror', None) or error}"
    raise CheckpointFileError(f"checkpoint {str(path)!r} {reason}. Give the path of {READABLE}.")


def _format(path: Path, head: bytes) -> str:
    if not head:
        raise CheckpointFileError(f"checkpoint {str(path)!r} is empty (0 bytes). Fetch it again.")
    found = format_of(head, path.stat().st_size)
    if found:
        return found
    raise CheckpointFileError(
        f"checkpoint {str(path)!r} is no checkpoint: it starts with {head[:16]!r}. Give {READABLE}."
    )


def _read_torch(path: Path) -> Any:
    with checked_archive(path):
        if path.name.endswith(".safetensors"):
            return _read_opened(path)
        return torch.load(
            str(path), map_location="cpu", weights_only=False, pickle_module=unpickler, mmap=True, encoding="latin1"
        )


def _read_legacy(path: Path) -> Any:
    if tarfile.is_tarfile(path):
        raise ValueError("it is a tar archive, which torch would unpack")
    return _read_opened(path)


def _read_opened(path: Path) -> Any:
    # Opened, since torch goes by the extension where it is given a path.
    with path.open("rb") as file:
        return torch.load(file, map_location="cpu", weights_only=False, pickle_module=unpickler, encoding="latin1")


def _read_pickle(path: Path) -> Any:
    from detrex_backbones.checkpoint import mapped_pickle

    return mapped_pickle.load(path)


def _read_safetensors(path: Path) -> Any:
    from detrex_backbones.checkpoint import mapped_safetensors

    return mapped_safetensors.load(path)


READERS = {
    "torch": _read_torch,
    "torch-legacy": _read_legacy,
    "pickle": _read_pickle,
    "safetensors": _read_safetensors,
    "dcp": dcp.read_folder,
}


def _as_tensor(value: Any, key: Any, path: Path) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    array = np.asarray(value, order="C")
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("="))
    if not array.flags.writeable:
        array = array.copy()
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        raise CheckpointFileError(
            f"checkpoint {str(path)!r}: {str(key)!r} is an array of {array.dtype}, which torch doesn't have. "
            f"Convert it to float32 and save it again."
        ) from error


def _summary(content: Mapping[Any, Any]) -> str:
    shown = [f"{key!r}: {type(value).__name__}" for key, value in list(content.items())[:6]]
    return ", ".join(shown) + (f" and {len(content) - 6} more" if len(content) > 6 else "") if shown else "nothing"
