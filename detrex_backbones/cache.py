"""The folder where copies of remote files are kept: for this user alone, whole, fetched by one process at a time."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from detrex_backbones.atomic_write import write_whole
from detrex_backbones.errors import CheckpointFileError, DetrexBackbonesError
from detrex_backbones.text import LONGEST_PATH, visible

__all__ = ["cache_folder", "clean_step", "keep", "lock_file"]


def cache_folder() -> Path:
    """`DETREX_BACKBONES_CACHE`, or `detrex_backbones` in the user's cache folder (`XDG_CACHE_HOME`, ~/.cache)."""
    own = os.environ.get("DETREX_BACKBONES_CACHE")
    try:
        if own:
            return Path(own).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "detrex_backbones"
    except RuntimeError as error:
        raise CheckpointFileError(
            "this user has no home folder to keep downloads in. DETREX_BACKBONES_CACHE=/some/folder names another."
        ) from error


def clean_step(step: str) -> str:
    """A part of a path with what some file system can't have replaced."""
    return re.sub(r"[^\w.+() -]", "_", step)


def keep(target: Path, key: str, fetch: Callable[[BinaryIO], object]) -> Path:
    """A file of the cache: as it is there, or fetched into it.

    Processes that want the same file at once cause one fetch, and the file appears only when it is whole. A cache
    where strangers may write is not used.

    Args:
        target: where it lies in the cache.
        key: what tells it from others: its URL.
        fetch: given the opened binary file, fills it, or raises what is raised here.

    Raises:
        CheckpointFileError: the cache can't be written, or belongs to another user and everybody may write to it.
    """
    from filelock import FileLock

    try:
        _check_trusted(target)
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(lock_file(key)):
                if not target.is_file():  # it may have come while this process waited
                    write_whole(target, fetch)
    except DetrexBackbonesError:
        raise
    except OSError as error:
        raise CheckpointFileError(
            f"can't write '{visible(target, LONGEST_PATH)}': {visible(error.strerror or error)}. "
            f"DETREX_BACKBONES_CACHE=/some/folder moves the cache."
        ) from error
    return target


def lock_file(key: str) -> Path:
    """The file that is locked while something is done that one process of this machine may do at a time."""
    folder = cache_folder() / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.lock"


def _check_trusted(target: Path) -> None:
    """Refuse a cache that belongs to somebody else and where everybody may put a file, or replace one."""
    if not hasattr(os, "geteuid"):  # Windows
        return
    cache = cache_folder()
    between = [folder for folder in target.parents if cache in folder.parents]
    for folder in [cache, cache / ".locks", *between]:
        if folder.is_dir():
            found = folder.stat()
            if found.st_mode & stat.S_IWOTH and found.st_uid != os.geteuid():
                raise CheckpointFileError(
                    f"the cache '{visible(folder, LONGEST_PATH)}' belongs to another user (uid {found.st_uid}) and "
                    f"everybody may write there, so nothing in it can be trusted. DETREX_BACKBONES_CACHE=/some/folder "
                    f"names one of your own."
                )
