"""What the first bytes of a file say that it is, and whether the rest of it is there."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

__all__ = ["HEAD", "LEGACY_MAGIC", "format_of", "is_cut", "safetensors_header"]

HEAD = 64  # bytes from which the format is known
HEADER_BYTES = 1 << 23  # of safetensors, where a tensor takes about a hundred
END_RECORD, LONGEST_COMMENT = 22, 65_535  # bytes at the end of a zip
LEGACY_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # torch's magic number, pickled, without its protocol


def format_of(head: bytes, size: int) -> str:
    """ "torch", "torch-legacy", "safetensors", "pickle", or "" for none of them.

    Args:
        head: the first `HEAD` bytes of the file.
        size: of the file, in bytes.
    """
    if head.startswith(b"PK\x03\x04"):
        return "torch"
    if head[:1] == b"\x80" and LEGACY_MAGIC in head:
        return "torch-legacy"
    if len(head) > 8 and struct.unpack("<Q", head[:8])[0] <= size and head[8:9] == b"{":
        return "safetensors"
    if head[:1] == b"\x80" or head[:1] in (b"(", b"}"):  # protocols 2 and later; 0 and 1
        return "pickle"
    return ""


def is_cut(path: Path, format: str) -> bool:
    """Whether the end of a file is missing, as far as that can be told without reading it: not of "torch-legacy"."""
    if format == "torch":
        return not _ends_as_zip(path)
    if format == "safetensors":
        return path.stat().st_size != _announced(path)
    if format == "pickle":
        with path.open("rb") as file:
            file.seek(-1, 2)
            return file.read() != b"."
    return False


def safetensors_header(path: Path) -> tuple[dict[str, Any], int]:
    """What a safetensors file says of each tensor, unchecked, and where the first one begins.

    Raises:
        ValueError: a header that is larger than weights need, or no JSON.
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > HEADER_BYTES:
            raise ValueError(f"its header of {length} bytes is larger than weights need ({HEADER_BYTES})")
        return json.loads(file.read(length)), 8 + length


def _ends_as_zip(path: Path) -> bool:
    """Whether the last bytes of a file are a zip's end record with the comment that it announces."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - END_RECORD - LONGEST_COMMENT))
        tail = file.read()
    start = tail.rfind(b"PK\x05\x06")
    record = tail[start : start + END_RECORD] if start >= 0 else b""
    return len(record) == END_RECORD and start + END_RECORD + struct.unpack("<H", record[-2:])[0] == len(tail)


def _announced(path: Path) -> int:
    """The size that the header of a safetensors file tells; 0 where it can't be read."""
    try:
        tensors, start = safetensors_header(path)
        ends = [entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"]
        return int(start + max(ends, default=0))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return 0
