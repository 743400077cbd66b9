"""What the first bytes of a file say that it is, and whether the rest of it is there."""

from __future__ import annotations

import re
from pathlib import Path

from detrex_backbones.checkpoint.read import numpy_file, safetensors_file, torch_file
from detrex_backbones.checkpoint.read.source import DamagedError, OtherFormatError, Source, open_source
from detrex_backbones.checkpoint.read.zip_archive import ZipArchive

__all__ = ["HEAD", "OF_TENSORFLOW", "TENSORFLOW", "TENSORFLOW_NAME", "format_of", "is_cut", "other_format"]

HEAD = 512  # bytes from which the format is known: the name of a zip archive's first entry is among them

# Python that makes a file that is read of one that isn't; FILE is its path.
UNPACKED = "import {0}, pathlib; pathlib.Path('weights').write_bytes({0}.open(FILE).read())"
HDF5 = (
    "import h5py, numpy; a = {}; h5py.File(FILE).visititems(lambda n, d: a.update({n: d[()]}) "
    "if hasattr(d, 'shape') else None); numpy.savez('weights.npz', **a)"
)
FLAX = (
    "import numpy, flax.serialization as s, flax.traverse_util as t; "
    "a = t.flatten_dict(s.msgpack_restore(open(FILE, 'rb').read()), sep='.'); "
    "numpy.savez('weights.npz', **{n: numpy.asarray(v, 'float32') for n, v in a.items()})"
)
ONNX = (
    "import numpy, onnx; numpy.savez('weights.npz', **{t.name: onnx.numpy_helper.to_array(t) "
    "for t in onnx.load(FILE).graph.initializer})"
)
TENSORFLOW = (
    "import numpy, tensorflow as tf; r = tf.train.load_checkpoint(FILE); a = r.get_variable_to_dtype_map(); "
    "numpy.savez('weights.npz', **{n: r.get_tensor(n) for n in a if a[n] != tf.string})"
)
# How a file begins -> what it is, and such a line.
OTHERS = (
    (rb"\x1f\x8b", "is compressed by gzip", UNPACKED.format("gzip")),
    (rb"BZh", "is compressed by bzip2", UNPACKED.format("bz2")),
    (rb"\xfd7zXZ", "is compressed by xz", UNPACKED.format("lzma")),
    (rb"7z\xbc\xaf", "is a 7-Zip archive", "import py7zr; py7zr.SevenZipFile(FILE).extractall('weights')"),
    (rb".{257}ustar", "is a tar archive", "import tarfile; tarfile.open(FILE).extractall('weights', filter='data')"),
    (rb"\x89HDF", "is an HDF5 file, as Keras writes it", HDF5),
    # A map whose first key is text.
    (rb"([\x81-\x8f]|\xde..|\xdf....)([\xa1-\xbf]|\xd9.)[ -~]", "is a file of msgpack, as Flax writes it", FLAX),
    # A number, the version of the format; then a text, a number or the graph.
    (rb"\x08[\x01-\x1f][\x12\x1a\x22\x28\x32\x3a\x42]", "is an ONNX model", ONNX),
    (rb"GGUF", "is a GGUF file, of language models", ""),
    (rb"version https://git-lfs", "is a pointer of Git LFS, not the file that it points to; run `git lfs pull`", ""),
)
OF_TENSORFLOW = "is a part of a TensorFlow checkpoint"
TABLE_END = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # of LevelDB, in which TensorFlow's index is written
TENSORFLOW_NAME = re.compile(r"\.(index|data-\d{5}-of-\d{5})$")


def format_of(head: bytes, size: int) -> str:
    """ "torch", "torch-legacy", "safetensors", "pickle", "npz", "npy", or "" for none of them.

    Args:
        head: the first `HEAD` bytes of the file.
        size: of the file, in bytes.
    """
    if head.startswith(b"PK\x03\x04"):
        first = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        return "npz" if first.endswith(b".npy") else "torch"
    if head[:1] == b"\x80" and torch_file.LEGACY_MAGIC.to_bytes(10, "little") in head[:64]:
        return "torch-legacy"
    if len(head) > 8 and int.from_bytes(head[:8], "little") <= size and head[8:].lstrip(b" ")[:1] in (b"{", b""):
        return "safetensors"
    if head.startswith(numpy_file.MAGIC):
        return "npy"
    if head[:1] == b"\x80" or head[:1] in (b"(", b"}"):  # protocols 2 and later; 0 and 1
        return "pickle"
    return ""


def other_format(path: Path, source: Source) -> OtherFormatError | None:
    """What a file is that isn't read, and how to make one that is; None where that isn't known."""
    head = source.read(0, min(source.size, HEAD))
    for start, what, line in OTHERS:
        if re.match(start, head, re.DOTALL):
            return OtherFormatError(what, line)
    size = min(source.size, len(TABLE_END))
    if source.read(source.size - size, size) == TABLE_END or TENSORFLOW_NAME.search(path.name):
        return OtherFormatError(OF_TENSORFLOW, TENSORFLOW)
    return None


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
