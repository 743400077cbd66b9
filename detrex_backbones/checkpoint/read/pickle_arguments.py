"""What stands behind an instruction of a pickle: a number, text or bytes for the stack, or a place in the memo.

An argument is read within the pickle's bytes, and costs time and memory in proportion to its own.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from detrex_backbones.checkpoint.read.records import Name, PersistentId, PickleError, without_halves

if TYPE_CHECKING:
    from detrex_backbones.checkpoint.read.pickle_data import _Machine

__all__ = ["PUTS", "READERS", "by_code", "global_name"]

LONG = 1 << 12  # bytes; a longer string stays a view of the file's bytes
DIGITS = 600  # of a number that is written as text, and bytes of one that isn't: larger ones are no weight's

Reader = Callable[["_Machine", int], tuple[Any, int]]
"""From where the argument of an instruction starts to the value that it is, and where what follows it starts."""


def _binary_text(width: int) -> Reader:
    def read(run: _Machine, at: int) -> tuple[Any, int]:
        start, end = run.piece(at, width)
        return str(run.data[start:end], "utf-8", "backslashreplace"), end

    return read


def _binary_bytes(width: int, text: bool = False) -> Reader:
    """Bytes; with `text` a string of Python 2, which is either: it becomes text where it is short."""

    def read(run: _Machine, at: int) -> tuple[Any, int]:
        start, end = run.piece(at, width)
        piece = run.data[start:end]
        return piece if end - start > LONG else str(piece, "latin1") if text else bytes(piece), end

    return read


def _number(layout: str) -> Reader:
    unpack, size = struct.Struct(layout).unpack_from, struct.calcsize(layout)
    return lambda run, at: (unpack(run.data, at)[0], at + size)


def _binary_long(width: int) -> Reader:
    def read(run: _Machine, at: int) -> tuple[Any, int]:
        start, end = run.piece(at, width)
        if end - start > DIGITS:
            raise PickleError(f"the pickle has an integer of {end - start} bytes at byte {at}")
        return int.from_bytes(run.data[start:end], "little", signed=True), end

    return read


def _written(parse: Callable[[bytes], Any], longest: int | None = None) -> Reader:
    """A value that is written as a line of text."""

    def read(run: _Machine, at: int) -> tuple[Any, int]:
        line, end = run.line(at)
        if longest is not None and len(line) > longest:
            raise PickleError(f"the pickle has a number of {len(line)} digits at byte {at}")
        try:
            return parse(line), end
        except ValueError as error:
            raise PickleError(f"the pickle has no value at byte {at}") from error

    return read


def _written_integer(line: bytes) -> int | bool:
    if line in (b"00", b"01"):  # how protocols 0 and 1 write False and True
        return line == b"01"
    return int(line.rstrip(b"L"))


def _written_string(line: bytes) -> str:
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise PickleError("the pickle has a string without quotes")
    return str(codecs.escape_decode(line[1:-1])[0], "latin1")


def _written_text(line: bytes) -> str:
    return without_halves(str(line, "raw-unicode-escape", "backslashreplace"))


def _written_index(line: bytes) -> int:
    if not line.isdigit():
        raise ValueError("no place in the memo")
    return int(line)


def global_name(run: _Machine, at: int) -> tuple[Name, int]:
    """A name that Python would import, in two lines of text."""
    module, at = run.line(at)
    name, at = run.line(at)
    return Name(module.decode(), name.decode()), at


def _from_memo(read: Reader) -> Reader:
    def find(run: _Machine, at: int) -> tuple[Any, int]:
        index, at = read(run, at)
        return run.memo[index], at

    return find


def by_code(table: dict[bytes, Any]) -> dict[int, Any]:
    """The same by the byte that each instruction is."""
    return {code[0]: value for code, value in table.items()}


_READERS: dict[int, Reader] = by_code({
    b"M": _number("<H"), b"J": _number("<i"), b"G": _number(">d"), b"\x8a": _binary_long(1), b"\x8b": _binary_long(4),
    b"I": _written(_written_integer, DIGITS), b"L": _written(_written_integer, DIGITS), b"F": _written(float, DIGITS),
    b"S": _written(_written_string), b"V": _written(_written_text),
    b"U": _binary_bytes(1, text=True), b"T": _binary_bytes(4, text=True),
    b"C": _binary_bytes(1), b"B": _binary_bytes(4), b"\x8e": _binary_bytes(8), b"\x96": _binary_bytes(8),
    b"\x8c": _binary_text(1), b"X": _binary_text(4), b"\x8d": _binary_text(8),
    b"j": _from_memo(_number("<I")), b"g": _from_memo(_written(_written_index, 10)),
    b"c": global_name, b"P": _written(lambda line: PersistentId(str(line, "latin1"))),
    b"N": lambda run, at: (None, at), b"\x88": lambda run, at: (True, at), b"\x89": lambda run, at: (False, at),
    b")": lambda run, at: ((), at),
})  # fmt: skip
READERS = [_READERS.get(code) for code in range(256)]
PUTS: dict[int, Reader] = by_code({b"q": _number("<B"), b"p": _written(_written_index, 10)})
