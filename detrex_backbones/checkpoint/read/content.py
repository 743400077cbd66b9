"""Opening a file of any format, and holding it open while its tensors are read."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detrex_backbones.checkpoint.read import distributed_folder, numpy_file, several_files, torch_file
from detrex_backbones.checkpoint.read.formats import (
    HEAD,
    OF_TENSORFLOW,
    TENSORFLOW,
    TENSORFLOW_NAME,
    format_of,
    other_format,
)
from detrex_backbones.checkpoint.read.safetensors_file import read_safetensors
from detrex_backbones.checkpoint.read.source import OtherFormatError, Source, open_source
from detrex_backbones.errors import CheckpointFileError
from detrex_backbones.text import LONGEST_PATH, visible

__all__ = ["Content", "content_of_bytes", "named", "open_content", "piece_names", "reading"]

READABLE = (
    "a torch file (.pth, .pt, .bin), a pickle of arrays or tensors (.pkl), .safetensors, .npz, "
    "or a folder of torch.distributed.checkpoint or of Hugging Face (with model.safetensors, pytorch_model.bin, or the "
    "index of several files), or hf-hub:org/name"
)
SHARDED = "sharded"

READERS: dict[str, Callable[[Source], Any]] = {
    "torch": torch_file.read_zip,
    "torch-legacy": torch_file.read_legacy,
    "pickle": torch_file.read_pickle,
    "safetensors": read_safetensors,
    "npz": numpy_file.read_archive,
    "npy": numpy_file.refuse_array,
}


@dataclass(frozen=True)
class Content:
    """What is stored in a file.

    Args:
        value: plain data with `LazyTensor`s in it, which can be loaded while the file is open.
        format: "torch", "torch-legacy", "pickle", "safetensors", "npz", "npy", "dcp", or "sharded" for several files.
    """

    value: Any
    format: str


def named(path: Path) -> str:
    """A checkpoint as messages call it."""
    return f"checkpoint {visible(repr(str(path)), longest=5000)}"


@contextmanager
def open_content(path: Path) -> Iterator[Content]:
    """Read what a file holds, but for the values of its tensors, and keep it open for these.

    Raises:
        CheckpointFileError: it is missing, no ordinary file, of no known format, damaged, or contradicts itself.
    """
    with ExitStack() as opened:
        value: Any
        if distributed_folder.is_folder(path):
            with reading(path, "dcp"):
                value = distributed_folder.read_folder(path, lambda file: opened.enter_context(open_source(file)))
            yield Content(value, "dcp")
            return
        file = _in_folder(path)
        value, kind = (None, SHARDED) if several_files.is_one_of_several(file) else _read_file(file, opened)
        if kind == SHARDED:
            with reading(path, kind):
                pieces = several_files.pieces_of(file)
                value = several_files.read_several(file.parent, pieces, lambda piece: _read_file(piece, opened)[0])
        yield Content(value, kind)


def piece_names(path: Path) -> list[str]:
    """The names of all files of a checkpoint that is in several, by the name of one or of its index; else none.

    Raises:
        CheckpointFileError: they contradict themselves, or name files elsewhere.
    """
    with reading(path, SHARDED):
        return list(several_files.pieces_of(path)) if several_files.is_one_of_several(path) else []


def _in_folder(path: Path) -> Path:
    """The file that is to be read, of a folder the one with its weights."""
    try:
        folder = path.is_dir()
    except (OSError, ValueError):  # a name that no file can have
        folder = False
    with reading(path, "folder"):
        return (several_files.weights_in(path) if folder else None) or path


def _read_file(path: Path, opened: ExitStack) -> tuple[Any, str]:
    """What one file holds, and its format; nothing of an index."""
    source = opened.enter_context(_opened(path))
    kind = _format(path, source)
    with reading(path, kind):
        return READERS[kind](source) if kind != SHARDED else None, kind


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """What a damaged file sets off in a reader, as an error of ours."""
    collecting = gc.isenabled()
    gc.disable()  # all that is made is kept: looking for garbage among it would take half of the time
    try:
        yield
    except CheckpointFileError:
        raise
    except OtherFormatError as error:
        raise _not_read(path, f"can't be read as {kind}: it {error}", error.line) from error
    except (ValueError, LookupError, OSError, MemoryError, RecursionError, OverflowError) as error:
        reason = visible(error) or type(error).__name__
        raise CheckpointFileError(
            f"{named(path)} can't be read as {kind}: {reason}. "
            f"Is it whole? Compare its size and hash with the source's, or fetch it again."
        ) from error
    finally:
        if collecting:
            gc.enable()


def content_of_bytes(path: Path, data: bytes) -> Content:
    """What a file holds that was opened by somebody else, from its bytes.

    Raises:
        CheckpointFileError: as of `open_content`.
    """
    source = Source.of_memory(data)
    kind = _format(path, source)
    if kind == SHARDED:
        raise CheckpointFileError(f"{named(path)} is the index of several files. Give its path instead.")
    with reading(path, kind):
        return Content(READERS[kind](source), kind)


@contextmanager
def _opened(path: Path) -> Iterator[Source]:
    try:
        if path.is_dir():
            raise IsADirectoryError("is a folder")
        context = open_source(path)
        source = context.__enter__()
    except FileNotFoundError:
        if path.with_name(f"{path.name}.index").is_file():
            raise _not_read(path, OF_TENSORFLOW, TENSORFLOW) from None
        reason = "does not exist"
    except IsADirectoryError:
        reason = "is a folder"
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = f"can't be opened: {getattr(error, 'strerror', None) or error}"
    else:
        try:
            yield source
        finally:
            context.__exit__(None, None, None)
        return
    raise CheckpointFileError(f"{named(path)} {reason}. Give the path of {READABLE}.")


def _format(path: Path, source: Source) -> str:
    if not source.size:
        raise CheckpointFileError(f"{named(path)} is empty (0 bytes). Fetch it again.")
    head = source.read(0, min(source.size, HEAD))
    found = format_of(head, source.size)
    if found:
        return found
    if head.lstrip().startswith(b"{") and several_files.is_index(source):
        return SHARDED
    other = other_format(path, source)
    if other is not None:
        raise _not_read(path, str(other), other.line)
    raise CheckpointFileError(f"{named(path)} is no checkpoint: it starts with {head[:16]!r}. Give {READABLE}.")


def _not_read(path: Path, what: str, line: str) -> CheckpointFileError:
    """The error for a file of another format, with the line of Python that makes one of it that is read."""
    # A TensorFlow checkpoint is called by what its files' names begin with.
    file = visible(repr(TENSORFLOW_NAME.sub("", str(path))), longest=LONGEST_PATH)
    made = f" Convert it first:\n    {line.replace('FILE', file)}" if line else ""
    return CheckpointFileError(f"{named(path)} {visible(what, longest=1000)}.{made}")
