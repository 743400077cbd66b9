"""What came by a network, looked at before it gets its name."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["what_is_wrong"]

BLOCK = 1 << 20
ALGORITHMS = {"sha256": hashlib.sha256, "sha1": hashlib.sha1, "md5": hashlib.md5}


def what_is_wrong(part: Path, hash: str = "", checkpoint: bool = True) -> str:
    """Why a file that came is not the one that was meant: it is empty, a web page, cut, or has another hash.

    Args:
        part: the file.
        hash: as of `download`.
        checkpoint: whether it has to be one.

    Returns:
        A clause of a message; "" where nothing is wrong.
    """
    from detrex_backbones.checkpoint.read import HEAD, format_of, is_cut  # needs torch, which the tables don't need

    with part.open("rb") as file:
        head = file.read(HEAD)
    size = part.stat().st_size
    if not size:
        return "the download is empty (0 bytes)"
    if head.lstrip().startswith(b"<"):
        return f"{size:,} bytes of a web page were received ({head.lstrip()[:24]!r}...), not the file"
    algorithm, _, prefix = hash.partition(":")
    if prefix:
        digests = _digests(part, list(ALGORITHMS) if algorithm == "any" else [algorithm])
        if not any(digest.startswith(prefix.lower()) for digest in digests.values()):
            found = ", ".join(f"{name} {digest[: max(8, len(prefix))]}" for name, digest in digests.items())
            return f"it is another file: {size:,} bytes with {found}, expected {prefix}"
    if not checkpoint:
        return ""
    found = format_of(head, size)
    if not found:
        return f"{size:,} bytes were received that are no checkpoint: they start with {head[:24]!r}"
    if is_cut(part, found):
        return f"{size:,} bytes were received, and the end of the file is missing"
    return ""


def _digests(path: Path, algorithms: list[str]) -> dict[str, str]:
    hashers = {name: ALGORITHMS[name](usedforsecurity=False) for name in algorithms}
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            for hasher in hashers.values():
                hasher.update(block)
    return {name: hasher.hexdigest() for name, hasher in hashers.items()}
