"""Files that are there whole or not at all, as a run that may be killed at any moment needs them."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch

__all__ = ["save_whole", "write_whole"]


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write beside `path`, to the disk, and rename. Only the first process of a run writes.

    Raises:
        OSError: the disk is full, the folder read-only and so on. The file is as it was before.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def save_whole(path: Path, content: dict[str, Any]) -> None:
    """`torch.save`, by way of memory: on a full disk it would raise something else than an OSError."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_whole(path, buffer.getbuffer())
