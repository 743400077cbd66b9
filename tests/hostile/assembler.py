"""Pickles written instruction by instruction, and put into each container in place of a value."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from tests.checkpoint.nets import arrays, small_state

MARKER = "the program that is put here"
KINDS = ("pickle", "torch-legacy", "torch")


def value(thing: Any) -> bytes:
    """The instructions that make a plain value, without a memo."""
    out = io.BytesIO()
    pickler = pickle.Pickler(out, protocol=2)
    pickler.fast = True
    pickler.dump(thing)
    return out.getvalue()[2:-1]


def named(module: str, name: str) -> bytes:
    """GLOBAL."""
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def text(word: str) -> bytes:
    """BINUNICODE."""
    return b"X" + len(word.encode()).to_bytes(4, "little") + word.encode()


def stack_named(module: str, name: str) -> bytes:
    """STACK_GLOBAL, whose names may have dots in them."""
    return text(module) + text(name) + b"\x93"


def call(function: bytes, *args: Any) -> bytes:
    """REDUCE; arguments are plain values, or instructions where they are bytes-like `Code`."""
    return function + b"(" + b"".join(arg if isinstance(arg, Code) else value(arg) for arg in args) + b"tR"


class Code(bytes):
    """Instructions, not a value of bytes."""


def write(program: bytes, path: Path, kind: str, beside: bool) -> None:
    """A file that has the program as its whole content, or beside good weights.

    Args:
        program: instructions that leave one value on the stack.
        path: the file.
        kind: one of `KINDS`.
        beside: under a key of its own, with the weights under "model".
    """
    weights = arrays(small_state()) if kind == "pickle" else small_state()
    content = {"evil": MARKER, "model": weights} if beside else MARKER
    whole = text(MARKER)
    if kind == "pickle":
        path.write_bytes(_replace(pickle.dumps(content, protocol=2), whole, program))
        return
    torch.save(content, path, _use_new_zipfile_serialization=kind == "torch")
    if kind == "torch":
        rewrite(path, "data.pkl", lambda data: _replace(data, whole, program))
    else:
        path.write_bytes(_replace(path.read_bytes(), whole, program))


def rewrite(path: Path, entry: str, change: Any) -> None:
    """Change one entry of a torch file; all else, checksums included, is as torch writes it."""
    with zipfile.ZipFile(path) as archive:
        records = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    writer = torch._C.PyTorchFileWriter(str(path))
    for name, record in records.items():
        if name == entry:
            record = change(record)
        if name not in ("version", ".data/serialization_id", "byteorder"):
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()


def _replace(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1
    return data.replace(old, new)
