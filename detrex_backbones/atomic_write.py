"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["move_whole", "write_whole"]


class _WritesWhole(Protocol):
    """A path of remote storage, which has its own way."""

    def write_whole(self, write: Callable[[Any], object]) -> None: ...


def write_whole(path: Path | _WritesWhole, write: Callable[[Any], object]) -> None:
    """Write beside `path`, to the disk, and rename: whoever reads sees the old file or the new one, never a part.

    Whoever else writes the same file at the same time writes another part; the last to rename wins. What a killed
    process left of the same file is removed.

    Args:
        path: of the file, of this machine or of remote storage.
        write: given the opened binary file.

    Raises:
        OSError: the disk is full, the folder read-only and so on. The file is as it was before.
    """
    if not isinstance(path, Path):
        path.write_whole(write)
        return
    if path.exists() and not path.is_file():  # a device would be replaced by a file
        raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
    _remove_abandoned(path)
    partial, file = _create(path)
    try:
        with file:
            _write(file, write)
            file.flush()
            os.fsync(file.fileno())
            if fcntl is not None:
                partial.replace(path)  # while it is locked, or it could be taken for abandoned
        if fcntl is None:
            partial.replace(path)  # when it is closed, as Windows wants it
    finally:
        with suppress(OSError):  # which would hide the first error
            partial.unlink()
    _sync_folder(path.parent)


def _create(path: Path) -> tuple[Path, BinaryIO]:
    """A new file beside `path`, locked: the kernel takes the lock away from a process that dies."""
    while True:
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        file = partial.open("xb")
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        if partial.exists():
            return partial, file
        file.close()  # it was taken for abandoned before it was locked


def _write(file: BinaryIO, write: Callable[[Any], object]) -> None:
    try:
        write(file)
    except RuntimeError as error:
        # torch closes its archive after a write that failed, and complains of a wrong position then.
        cause = error.__context__
        if isinstance(cause, OSError):
            raise cause from None
        raise


def _remove_abandoned(path: Path) -> None:
    """Remove the parts of `path` whose writers were killed. Nothing is certain where there are no locks."""
    if fcntl is None:
        return
    with suppress(OSError):
        for partial in path.parent.iterdir():
            if partial.name.startswith(f".{path.name}.") and partial.suffix == ".partial":
                with suppress(OSError), partial.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    partial.unlink()


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_whole(partial: Path, folder: Path) -> None:
    """Give a folder that is complete its name. One that has it already is removed.

    A folder can't be replaced in one step: a crash between two renames leaves the old one as `.NAME.before`.
    """
    before = folder.with_name(f".{folder.name}.before")
    shutil.rmtree(before, ignore_errors=True)
    _sync_folder(partial)
    if folder.exists():
        folder.rename(before)
    partial.rename(folder)
    _sync_folder(folder.parent)
    shutil.rmtree(before, ignore_errors=True)
