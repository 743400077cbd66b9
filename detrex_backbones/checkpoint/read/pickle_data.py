"""A pickle as data: its instructions are followed, and nothing that they name is imported, called or hashed.

A pickle is a program for a stack machine. `parse_pickle` is that machine without its powers: where Python would import
a name it keeps a `Name`, where Python would call something it keeps a `Call`. What comes out is plain data (None, bool,
int, float, str, bytes, list, dict, tuple) and these records. Each instruction costs time and memory in proportion to
the bytes that it stands in, and a value that the pickle uses again is shared, never copied. `rebuild` makes tensors of
it.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from detrex_backbones.checkpoint.read.records import (
    Call,
    Data,
    Name,
    PersistentId,
    PickleError,
    longer,
    without_halves,
)

__all__ = ["parse_pickle"]

LONG = 1 << 12  # bytes of a string from which on it stays a view of the file's bytes
DIGITS = 600  # of a number that is written as text, and bytes of one that isn't: larger ones are no weight's
RECORDS = 1_000_000  # lists, dicts, tuples and calls in any pickle: an instruction of one byte makes one
RECORD_BYTES = 16  # bytes of a larger pickle for each further one; a tensor has six records and about a hundred bytes


def parse_pickle(
    given: bytes | memoryview, at: int = 0, references: list[PersistentId] | None = None
) -> tuple[Any, int]:
    """Follow one pickle, of any protocol and of Python 2 too.

    Args:
        given: the bytes that it stands in. Strings from `LONG` bytes on are views of them.
        at: where it starts.
        references: gets every reference to something outside the pickle.

    Returns:
        What it holds, and where its end is.

    Raises:
        PickleError: it is cut, or asks for what no checkpoint needs.
    """
    data = memoryview(given)
    machine = _Machine(data, [] if references is None else references)
    stack, memo, from_bytes = machine.stack, machine.memo, int.from_bytes
    try:
        while True:
            code = data[at]
            if code == BINGET:  # this one and the next three are half of all instructions
                stack.append(memo[data[at + 1]])
                at += 2
            elif code == MEMOIZE:
                memo[len(memo)] = stack[-1]
                at += 1
            elif code == LONG_BINPUT:
                memo[from_bytes(data[at + 1 : at + 5], "little")] = stack[-1]
                at += 5
            elif code == BININT1:
                stack.append(data[at + 1])
                at += 2
            elif code == STOP:
                return stack.pop(), at + 1
            elif (read := READERS[code]) is not None:
                value, at = read(machine, at + 1)
                stack.append(value)
            elif code in PUTS:
                index, at = PUTS[code](machine, at + 1)
                memo[index] = stack[-1]
            else:
                at = OPERATIONS.get(code, _refuse)(machine, at + 1) or at + 1
    except (IndexError, KeyError, struct.error, UnicodeError) as error:
        raise PickleError(f"the pickle is cut or damaged at byte {at}") from error


class _Machine:
    """The stack, the places in it where marks are, and the memo."""

    __slots__ = ("data", "made", "marks", "memo", "most", "references", "size", "stack")

    def __init__(self, data: memoryview, references: list[PersistentId]) -> None:
        self.data, self.size, self.made, self.references = data, len(data), 0, references
        self.most = RECORDS + self.size // RECORD_BYTES
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def push(self, record: Any) -> None:
        """Put a container or a call on the stack. Of these there are no more than a checkpoint of this size has."""
        self.made += 1
        if self.made > self.most:
            self.refuse_more()
        self.stack.append(record)

    def refuse_more(self) -> NoReturn:
        """Say how many containers and calls were too many."""
        raise PickleError(f"the pickle has more than {self.most:,} lists, dicts, tuples and calls")

    def marked(self, count: int = 0) -> list[Any]:
        """The values above the last mark, or so many of the last, which leave the stack."""
        start = len(self.stack) - count if count else self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def line(self, at: int) -> tuple[bytes, int]:
        """The text up to the next line end, and where what follows it starts."""
        width = 1 << 8
        while True:
            text = bytes(self.data[at : at + width])
            end = text.find(b"\n")
            if end >= 0:
                return text[:end], at + end + 1
            if at + width >= self.size:
                raise IndexError
            width *= 4

    def piece(self, at: int, width: int) -> tuple[int, int]:
        """Where an argument starts and ends whose length stands before it, in `width` bytes."""
        start = at + width
        end = start + int.from_bytes(self.data[at:start], "little")
        if start > self.size or end > self.size:
            raise IndexError
        return start, end


Reader = Callable[[_Machine, int], tuple[Any, int]]
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


def _global(run: _Machine, at: int) -> tuple[Name, int]:
    module, at = run.line(at)
    name, at = run.line(at)
    return Name(module.decode(), name.decode()), at


def _from_memo(read: Reader) -> Reader:
    def find(run: _Machine, at: int) -> tuple[Any, int]:
        index, at = read(run, at)
        return run.memo[index], at

    return find


def _as_dict(values: list[Any]) -> Data:
    made = Data()
    for key, value in _in_pairs(values):
        made.put(key, value)
    return made


def _in_pairs(values: list[Any]) -> Iterator[tuple[Any, Any]]:
    if len(values) % 2:
        raise PickleError("the pickle has a key without a value")
    return zip(values[::2], values[1::2], strict=True)


def _extend(target: Any, values: list[Any]) -> None:
    if isinstance(target, Call):
        target.items = longer(target.items, values)
    elif isinstance(target, list):
        target.extend(values)
    else:
        raise PickleError(f"the pickle appends to a {type(target).__name__}")


def _update(target: Any, values: list[Any]) -> None:
    pairs = _in_pairs(values)
    if isinstance(target, Call):
        target.pairs = longer(target.pairs, pairs)
    elif isinstance(target, Data):
        for key, value in pairs:
            target.put(key, value)
    else:
        raise PickleError(f"the pickle sets keys of a {type(target).__name__}")


def _set_state(target: Any, values: list[Any]) -> None:
    if not isinstance(target, Call) or target.state is not None:
        kind = "an object twice" if isinstance(target, Call) else f"a {type(target).__name__}"
        raise PickleError(f"the pickle sets the state of {kind}")
    target.state = values[0]


def _name(name: Any, module: Any) -> Name:
    if not isinstance(module, str) or not isinstance(name, str):
        raise PickleError("the pickle refers to an object by a name that is no string")
    return Name(module, name)


def _reference(run: _Machine, value: Any) -> PersistentId:
    run.references.append(PersistentId(value))
    return run.references[-1]


def _instance(run: _Machine, at: int) -> int:
    function, at = _global(run, at)
    run.push(Call(function, tuple(run.marked())))
    return at


def _refuse(run: _Machine, at: int) -> int:
    raise PickleError(
        f"the pickle has the instruction {run.data[at - 1]:#04x} at byte {at - 1}, which no checkpoint needs"
    )


Operation = Callable[[_Machine, int], int | None]
"""What changes the stack; gives where the next instruction stands, None for at once."""


def _gather(kind: Callable[[list[Any]], Any]) -> Operation:
    """Something made of all that is above the last mark."""
    return lambda run, at: run.push(kind(run.marked()))


def _of_last(count: int, kind: Callable[..., Any] = lambda *values: values) -> Operation:
    """Something made of the last values. A third of all instructions: nothing is called here that needn't be."""

    def operation(run: _Machine, at: int) -> None:
        values = run.stack[-count:]
        if len(values) < count:
            raise IndexError
        run.made += 1
        if run.made > run.most:
            run.refuse_more()
        run.stack[-count:] = (kind(*values),)

    return operation


def _change(how: Callable[[Any, list[Any]], None], count: int = 0) -> Operation:
    """Change the value below by `count` values, or by those above the last mark."""

    def operation(run: _Machine, at: int) -> None:
        values = run.marked(count)
        how(run.stack[-1], values)

    return operation


def _codes(table: dict[bytes, Any]) -> dict[int, Any]:
    return {code[0]: value for code, value in table.items()}


BINGET, MEMOIZE, LONG_BINPUT, BININT1, STOP = ord("h"), 0x94, ord("r"), ord("K"), ord(".")
_READERS: dict[int, Reader] = _codes({
    b"M": _number("<H"), b"J": _number("<i"), b"G": _number(">d"), b"\x8a": _binary_long(1), b"\x8b": _binary_long(4),
    b"I": _written(_written_integer, DIGITS), b"L": _written(_written_integer, DIGITS), b"F": _written(float, DIGITS),
    b"S": _written(_written_string), b"V": _written(_written_text),
    b"U": _binary_bytes(1, text=True), b"T": _binary_bytes(4, text=True),
    b"C": _binary_bytes(1), b"B": _binary_bytes(4), b"\x8e": _binary_bytes(8), b"\x96": _binary_bytes(8),
    b"\x8c": _binary_text(1), b"X": _binary_text(4), b"\x8d": _binary_text(8),
    b"j": _from_memo(_number("<I")), b"g": _from_memo(_written(_written_index, 10)),
    b"c": _global, b"P": _written(lambda line: PersistentId(str(line, "latin1"))),
    b"N": lambda run, at: (None, at), b"\x88": lambda run, at: (True, at), b"\x89": lambda run, at: (False, at),
    b")": lambda run, at: ((), at),
})  # fmt: skip
READERS = [_READERS.get(code) for code in range(256)]
PUTS: dict[int, Reader] = _codes({b"q": _number("<B"), b"p": _written(_written_index, 10)})
OPERATIONS: dict[int, Operation] = _codes({
    b"\x80": lambda run, at: at + 1,  # PROTO
    b"\x95": lambda run, at: at + 8,  # FRAME, a hint for buffering
    b"(": lambda run, at: run.marks.append(len(run.stack)),
    b"0": lambda run, at: (run.marks if run.marks[-1:] == [len(run.stack)] else run.stack).pop() and None,
    b"1": lambda run, at: run.marked() and None, b"2": lambda run, at: run.stack.append(run.stack[-1]),
    b"]": lambda run, at: run.push([]), b"}": lambda run, at: run.push(Data()),
    b"\x8f": lambda run, at: run.push(Call(Name("builtins", "set"), ())),
    b"\x91": _gather(lambda values: Call(Name("builtins", "frozenset"), (values,))),
    b"\x85": _of_last(1), b"\x86": _of_last(2), b"\x87": _of_last(3), b"t": _gather(tuple), b"l": _gather(list),
    b"d": _gather(_as_dict), b"o": _gather(lambda values: Call(values[0], tuple(values[1:]))), b"i": _instance,
    b"a": _change(_extend, 1), b"e": _change(_extend), b"\x90": _change(_extend),
    b"s": _change(_update, 2), b"u": _change(_update), b"b": _change(_set_state, 1),
    b"R": _of_last(2, Call), b"\x81": _of_last(2, Call),
    b"\x92": _of_last(3, lambda function, arguments, keywords: Call(function, (arguments, keywords))),
    b"\x93": lambda run, at: run.stack.append(_name(run.stack.pop(), run.stack.pop())),
    b"Q": lambda run, at: run.stack.append(_reference(run, run.stack.pop())),
})  # fmt: skip
