"""Folders of torch.distributed.checkpoint (DCP): a pickled table of contents, and files of pieces of tensors.

torch reads the table with plain `pickle`, which runs what it says. Here the table is read like every other file: names
of DCP's classes become records that hold what they are given, and nothing in the folder is run.
"""

from __future__ import annotations

import io
import mmap
import os
import shutil
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from detrex_backbones.atomic_write import move_whole
from detrex_backbones.checkpoint import unpickler
from detrex_backbones.checkpoint.nested import put_in, take_out
from detrex_backbones.checkpoint.ranks import Ranks
from detrex_backbones.checkpoint.sharded import placement
from detrex_backbones.errors import CheckpointFileError

__all__ = ["is_folder", "read_folder", "write_folder", "writing"]

CONTENTS = ".metadata"
CLASSES = "torch.distributed.checkpoint."
STRUCTURE = "detrex_backbones.structure"  # the entry that holds everything but the tensors
ALIGN = 64  # bytes; tensors start at whole numbers of every dtype


def is_folder(path: Path) -> bool:
    """Whether this is a folder that torch.distributed.checkpoint wrote."""
    try:
        return (path / CONTENTS).is_file()
    except (OSError, ValueError):  # nobody may look, or a null character in the name
        return False


def read_folder(folder: Path) -> dict[str, Any]:
    """What was saved, nested as it was; the tensors whole, however many processes wrote parts of them.

    They lie in a temporary file which is mapped and has no name, so that they take room on the disk (`TMPDIR`), not in
    memory. The room is asked for beforehand; a full disk is an error.
    """
    with (folder / CONTENTS).open("rb") as file:
        contents = _Contents(file).load()
    pieces: dict[str, dict[tuple[int, ...], Any]] = defaultdict(dict)
    for index, info in contents.storage_data.items():
        if pieces[index.fqn].setdefault(tuple(getattr(index, "offset", None) or ()), info) is not info:
            raise ValueError(f"{index.fqn!r} is stored twice")
    room = _room(contents.state_dict_metadata, sum(file.stat().st_size for file in folder.iterdir()))
    flat: dict[str, Any] = {}
    with ExitStack() as opened:
        files: dict[str, BinaryIO] = {}
        for name in contents.state_dict_metadata:
            filled = 0
            for offset, info in pieces[name].items():
                if info.relative_path not in files:
                    file = opened.enter_context(_inside(folder, info.relative_path).open("rb"))
                    files[info.relative_path] = file
                flat[name] = _load(files[info.relative_path], info)
                filled += _put(room[name], offset, flat[name]) if name in room else 0
            if name in room and filled != room[name].numel():
                raise ValueError(f"{filled} of the {room[name].numel()} numbers of {name!r} are stored")
            flat[name] = room.get(name, flat.get(name))
    if STRUCTURE in flat:
        return put_in(flat.pop(STRUCTURE)[0], flat)  # type: ignore[no-any-return]
    paths = getattr(contents, "planner_data", None)
    return _nested(flat, paths if isinstance(paths, dict) else {})


def write_folder(ranks: Ranks, folder: Path, state: dict[str, Any]) -> None:
    """Save, each process its part. The folder appears once all of it is on the disk.

    Where there is one of this name already, it is moved aside for the moment between two renames: a crash just then
    leaves it beside, as `.NAME.before`.

    The tensors get the names that torch gives them, so that its own `load` reads them: {"model": {"a": t}} is
    "model.a". Everything else is kept in one entry, in a tuple: torch would take mappings apart and make
    text of their keys.

    Args:
        ranks: all who have a part.
        folder: not yet there, or to be replaced; seen by all.
        state: nested; the same names on all processes.

    Raises:
        CheckpointFileError: the folder can't be written to, or the disk is full.
        RankError: a process was lost, or has other names.
    """
    from torch.distributed.checkpoint.state_dict_saver import save

    structure, tensors = take_out(state)
    names = {name: f"{list(value.shape)} {placement(value)}" for name, value in tensors.items()}
    ranks.agree("what is saved", {**names, "to": str(folder)}, "Save the same objects on every process.")

    partial = folder.with_name(f".{folder.name}.partial")
    with writing(folder):
        ranks.together(lambda: _make_empty(partial, folder) if ranks.first else None)
        ranks.talk(lambda: save({**tensors, STRUCTURE: (structure,)}, checkpoint_id=partial, process_group=ranks.group))
        ranks.together(lambda: _finish(partial, folder) if ranks.first else None)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Errors of the disk as ours."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except CheckpointFileError:
        raise
    except (OSError, CheckpointException) as error:
        raise CheckpointFileError(
            f"checkpoint {str(folder)!r} can't be written: {error}. The last one that is whole is still marked."
        ) from error


def _make_empty(partial: Path, folder: Path) -> None:
    with writing(folder):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)


def _finish(partial: Path, folder: Path) -> None:
    with writing(folder):
        move_whole(partial, folder)


class _Record:
    """Stands for an object of one of DCP's classes: keeps what the file says of it, and does nothing."""

    state: Any = None

    def __init__(self, *args: Any) -> None:
        """Accept what an enumeration is called with."""

    def __setstate__(self, state: Any) -> None:
        self.state = state
        if isinstance(state, dict):
            self.__dict__.update(state)


class _Contents(unpickler.Unpickler):
    """Reads the table of contents."""

    def find_class(self, module: str, name: str) -> Any:
        # A class of its own each time, so that nothing that is set on it stays.
        return type(name, (_Record,), {}) if module.startswith(CLASSES) else super().find_class(module, name)


def _room(described: dict[str, Any], limit: int) -> dict[str, Tensor]:
    """Room for every tensor, in a temporary file."""
    tensors = {name: entry for name, entry in described.items() if hasattr(entry, "size")}
    starts, end = {}, 0
    for name, entry in tensors.items():
        if min(entry.size, default=0) < 0:
            raise ValueError(f"{name!r} has the shape {tuple(entry.size)}")
        starts[name] = end
        end += -(-prod(entry.size) * entry.properties.state[0].itemsize // ALIGN) * ALIGN
    if end > limit + ALIGN * len(tensors):
        raise ValueError(f"tensors of {end} bytes are declared in files of {limit}")
    with tempfile.TemporaryFile() as file:
        if hasattr(os, "posix_fallocate"):  # a disk that is full when a mapped page is written kills the process
            os.posix_fallocate(file.fileno(), 0, max(end, 1))
        else:
            file.truncate(max(end, 1))
        mapped = mmap.mmap(file.fileno(), max(end, 1))
    return {name: _view(mapped, starts[name], entry) for name, entry in tensors.items()}


def _view(mapped: mmap.mmap, start: int, entry: Any) -> Tensor:
    dtype, count = entry.properties.state[0], prod(entry.size)
    if not count:
        return torch.empty(tuple(entry.size), dtype=dtype)
    return torch.frombuffer(mapped, dtype=dtype, count=count, offset=start).reshape(tuple(entry.size))


def _inside(folder: Path, name: str) -> Path:
    if not isinstance(name, str) or Path(name).name != name:
        raise ValueError(f"it names a file elsewhere: {name!r}")
    return folder / name


def _load(file: BinaryIO, info: Any) -> Any:
    """One piece: a torch file within the file."""
    if getattr(info, "transform_descriptors", None):
        raise ValueError(f"it is compressed ({', '.join(map(str, info.transform_descriptors))}); save it plain")
    file.seek(info.offset)
    data = io.BytesIO(file.read(info.length) if info.length >= 0 else b"")
    with zipfile.ZipFile(data) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("a piece is compressed, which torch's never are")
        # torch can be told to write no checksums; then all are 0.
        damaged = archive.testzip() if any(entry.CRC for entry in entries) else None
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged!r} is wrong")
    data.seek(0)
    # Asked of torch's own reader, which is the one that would start a program.
    if "constants.pkl" in torch._C.PyTorchFileReader(data).get_all_records():
        raise ValueError("a TorchScript archive holds a program")
    data.seek(0)
    return torch.load(data, map_location="cpu", weights_only=False, pickle_module=unpickler, encoding="latin1")


def _put(whole: Tensor, offset: tuple[int, ...], piece: Any) -> int:
    """Write a piece into its place; how many numbers that were."""
    if not isinstance(piece, Tensor) or piece.dtype != whole.dtype or piece.dim() != whole.dim():
        raise ValueError("a piece is no part of its tensor")
    for dim, (start, length) in enumerate(zip(offset, piece.shape, strict=True)):
        whole = whole.narrow(dim, start, length)  # raises where it reaches past the end
    whole.copy_(piece)
    return piece.numel()


def _nested(flat: dict[str, Any], paths: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
    """Put what was flattened back into mappings and lists: a whole number in a path is a place in a list."""
    tree: dict[Any, Any] = {}
    for name, value in flat.items():
        *above, last = paths.get(name, (name,))
        place = tree
        for step in above:
            place = place.setdefault(step, {})
        place[last] = value
    return {name: _with_lists(value) for name, value in tree.items()}


def _with_lists(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    if tree and all(isinstance(key, int) for key in tree):
        return [_with_lists(tree[key]) for key in sorted(tree)]
    return {key: _with_lists(value) for key, value in tree.items()}
