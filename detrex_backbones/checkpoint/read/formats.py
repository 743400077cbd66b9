"""What the first bytes of a file say that it is, and whether the rest of it is there."""

from __future__ import annotations

from pathlib import Path

from detrex_backbones.checkpoint.read import numpy_file, safetensors_file, torch_file
from detrex_backbones.checkpoint.read.source import DamagedError, open_source
from detrex_backbones.checkpoint.read.zip_archive import ZipArchive

__all__ = ["HEAD", "format_of", "is_cut", "other_format"]

HEAD = 64  # bytes from which the format is known

# Beginnings of what isn't read -> what it is, and how to make a state dict of it.
OTHERS = {
    b"\x1f\x8b": ("is compressed by gzip", "gunzip FILE"),
    b"BZh": ("is compressed by bzip2", "bunzip2 FILE"),
    b"\xfd7zXZ": ("is compressed by xz", "unxz FILE"),
    b"7z\xbc\xaf": ("is a 7-Zip archive", "7z x FILE"),
    b"\x89HDF": (
        "is an HDF5 file, as Keras writes it",
        "numpy.savez('weights.npz', **{name: array[()] for name, array in your_datasets.items()})",
    ),
    b"GGUF": ("is a GGUF file", "the checkpoint that it was made from is needed"),
    b"version https://git-lfs": ("is a pointer of Git LFS, not the file that it points to", "git lfs pull"),
}


def format_of(head: bytes, size: int) -> str:
    """ "torch", "torch-legacy", "safetensors", "pickle", "npz", "npy", "sharded" (an index in JSON, or
    other JSON), or "" for none of them.

    Args:
        head: the first `HEAD` bytes of the file.
        size: of the file, in bytes.
    """
    if head.startswith(b"PK\x03\x04"):
        first = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        return "npz" if first.endswith(b".npy") else "torch"
    if head[:1] == b"\x80" and torch_file.LEGACY_MAGIC.to_bytes(10, "little") in head:
        return "torch-legacy"
    if len(head) > 8 and int.from_bytes(head[:8], "little") <= size and head[8:].lstrip(b" ")[:1] in (b"{", b""):
        return "safetensors"
    if head.startswith(numpy_file.MAGIC):
        return "npy"
    if head.lstrip().startswith(b"{"):
        return "sharded"
    if head[:1] == b"\x80" or head[:1] in (b"(", b"}"):  # protocols 2 and later; 0 and 1
        return "pickle"
    return ""


def other_format(head: bytes) -> tuple[str, str]:
    """What a file is that isn't read, and how to make one that is; two empty texts where that isn't known."""
    if head[257:262] == b"ustar":
        return "is a tar archive", "tar xf FILE"
    return next((known for start, known in OTHERS.items() if head.startswith(start)), ("", ""))


def is_cut(path: Path, format: str) -> bool:
    """Whether the end of a file is missing, as far as that can be told without reading it: not of "torch-legacy"."""
    try:
        with open_source(path) as source:
            if format in ("torch", "npz"):
                ZipArchive(source)
            elif format == "safetensors":
                safetensors_file.read_safetensors(source)
            elif format == "pickle":
                return source.read(source.size - 1, 1) != b"."
    except DamagedError:
        return True
    return False
