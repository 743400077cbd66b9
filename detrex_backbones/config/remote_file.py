"""A config file of remote storage, as a file of this machine."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

from detrex_backbones.errors import ArgumentError, CheckpointFileError, ConfigImportError, RemoteError
from detrex_backbones.remote import as_path, local_copy
from detrex_backbones.text import LONGEST_PATH, visible

__all__ = ["fetch_config"]


def fetch_config(url: Any) -> Path:
    """The copy of a config file in the cache, as the storage has it now.

    Raises:
        ConfigImportError: it can't be had, is a web page or a pointer to a file, or imports what is beside it.
    """
    try:
        path = local_copy(as_path(url), _what_is_wrong)
    except (ArgumentError, CheckpointFileError, RemoteError) as error:
        raise ConfigImportError(str(error)) from error
    line = _relative_import(path) if path.suffix == ".py" else 0
    if line:
        raise ConfigImportError(
            f"'{visible(os.fspath(url), LONGEST_PATH)}', line {line}, imports a file beside it, and a config of remote "
            f"storage is fetched alone. Copy its folder here, or write it in one file: detrex-backbones show CONFIG "
            f"--save s3://bucket/config.py."
        )
    return path


def _what_is_wrong(part: Path) -> str:
    head = part.read_bytes()[:200].lstrip()
    if head.startswith(b"<"):
        return f"it is a web page ({head[:24]!r}...), no config"
    return "it is a pointer of Git LFS, no config" if head.startswith(b"version https://git-lfs") else ""


def _relative_import(path: Path) -> int:
    """The line of the first relative import of a Python file, or 0."""
    try:
        nodes = ast.walk(ast.parse(path.read_bytes()))
    except (SyntaxError, ValueError):  # which running it tells
        return 0
    return min((node.lineno for node in nodes if isinstance(node, ast.ImportFrom) and node.level), default=0)
