"""A pickle whose large arrays stay where they are: in the file, which is mapped and not read.

A pickle is a program, and the bytes of an array are the argument of one of its instructions. Here the program is copied
without such arguments: protocol 5's instruction for a buffer that lies elsewhere takes the place of each, and the
buffer is the mapped file. What runs the program is `unpickler.Unpickler`, with all of its rules.
"""

from __future__ import annotations

import io
import mmap
import pickle
import pickletools
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from detrex_backbones.checkpoint import unpickler

__all__ = ["load"]

LARGE = 1 << 16  # bytes; what is shorter is read

FRAME, NEXT_BUFFER, STOP = 0x95, 0x97, ord(".")
TWO_LINES = b"ci"  # GLOBAL and INST: a module and a name

# Instruction -> bytes of its argument, or one of pickletools' negative numbers; and those -> bytes of the length before
# an argument that has one.
ARGUMENTS = {ord(info.code): info.arg.n if info.arg else 0 for info in pickletools.opcodes}
LENGTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}


def load(path: Path) -> Any:
    """What a pickle of any protocol holds. Writing to its arrays leaves the file as it is.

    Raises:
        pickle.UnpicklingError: it is cut, or has instructions that no pickle in a file has.
    """
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    try:
        program, buffers = _split(mapped)
    except (IndexError, KeyError) as error:
        raise pickle.UnpicklingError("the pickle is cut, or none") from error
    return _finished(_Unpickler(io.BytesIO(program), buffers=buffers).load(), {})


class _Large:
    """Something long that stands in the file, and how it is made into what the program wrote."""

    def __init__(self, view: memoryview, make: Callable[[memoryview], Any]) -> None:
        self.view, self.make = view, make

    @cached_property
    def value(self) -> Any:
        return self.make(self.view)


class _Array:
    """Stands for an array while the program runs: it is made empty, and then given its bytes."""

    def __init__(self, *args: Any) -> None:
        self.array = unpickler.empty_array()

    def __setstate__(self, state: Any) -> None:
        *version, shape, dtype, fortran, data = state
        if isinstance(data, _Large) and data.make is not _utf8:
            self.array = np.frombuffer(data.view, dtype).reshape(shape, order="F" if fortran else "C")
            if self.array.shape != tuple(shape):
                raise pickle.UnpicklingError(f"an array of shape {shape} is not possible")
        else:
            self.array.__setstate__((*version, shape, dtype, fortran, _plain(data)))


class _Unpickler(unpickler.Unpickler):
    """Gives what it calls a view of what stands in the file, or the text that stands there."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and (module, name) in unpickler.ALLOWED:
            return unpickler.Call(_Array)
        found = super().find_class(module, name)
        if not isinstance(found, unpickler.Call):
            return found

        def call(*args: Any) -> Any:
            return found(*(_plain(arg) for arg in args))

        return unpickler.Call(call)


def _plain(value: Any) -> Any:
    if not isinstance(value, _Large):
        return value
    return value.view if value.make in (bytes, bytearray) else value.value


def _latin1(view: memoryview) -> str:
    return str(view, "latin1")


def _utf8(view: memoryview) -> str:
    return str(view, "utf-8", "surrogatepass")


# The instructions with arguments that stay in the file: BINBYTES, BINBYTES8, BYTEARRAY8, BINSTRING, BINUNICODE(8).
MAKERS: dict[int, Callable[[memoryview], Any]] = {
    ord("B"): bytes,
    0x8E: bytes,
    0x96: bytearray,
    ord("T"): _latin1,
    ord("X"): _utf8,
    0x8D: _utf8,
}


def _split(mapped: mmap.mmap) -> tuple[bytes, list[_Large]]:
    """The program without its large arguments, and those. Whatever is wrong in it is left for the unpickler to say."""
    view = memoryview(mapped)
    parts: list[memoryview | bytes] = []
    large: list[_Large] = []
    copied = start = opcode = 0
    while opcode != STOP:
        opcode = view[start]
        size = ARGUMENTS[opcode]
        end = start + 1
        if size >= 0:
            end += size
        elif size == pickletools.UP_TO_NEWLINE:
            for _ in range(2 if opcode in TWO_LINES else 1):
                end = mapped.find(b"\n", end) + 1 or len(view)
        else:
            first = end + LENGTHS[size]
            end = first + int.from_bytes(view[end:first], "little")
            if end - first >= LARGE and opcode in MAKERS:
                parts += [view[copied:start], bytes([NEXT_BUFFER])]
                large.append(_Large(view[first:end], MAKERS[opcode]))
                copied = end
        if opcode == FRAME:  # tells the length of what follows, which is another now, and is needed by nobody
            parts.append(view[copied:start])
            copied = end
        elif opcode == NEXT_BUFFER:
            raise pickle.UnpicklingError("it needs buffers that are not in the file")
        start = end
    return b"".join([*parts, view[copied:start]]), large


def _finished(value: Any, seen: dict[int, tuple[Any, Any]]) -> Any:
    """The same with arrays and what is long in their places, in dicts, lists and tuples of any depth."""
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, _Large):
        return value.value
    if not isinstance(value, dict | list | tuple):
        return value
    if id(value) in seen:
        return seen[id(value)][1]
    seen[id(value)] = value, value
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = _finished(item, seen)
    elif isinstance(value, list):
        value[:] = [_finished(item, seen) for item in value]
    elif type(value) is tuple:
        seen[id(value)] = value, tuple(_finished(item, seen) for item in value)
    return seen[id(value)][1]
