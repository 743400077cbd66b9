"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["move_whole", "write_whole"]


def write_whole(path: Path, write: Callable[[Any], object]) -> None:
    """Write beside `path`, to the disk, and rename: whoever reads sees the old file or the new one, never a part.

    Args:
        path: of the file.
        write: given the opened binary file.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(path.parent)


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
