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
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

__all__ = [
    "Call",
    "Data",
    "Name",
    "PersistentId",
    "PickleError",
    "is_safe_key",
    "parse_pickle",
    "persistent_ids",
    "without_halves",
]

LONG = 1 << 12  # bytes of a string from which on it stays a view of the file's bytes
DIGITS = 600  # of a number that is written as text, and bytes of one that isn't: larger ones are no weight's
RECORDS = 1_000_000  # lists, dicts, tuples and calls in any pickle: an instruction of one byte makes one
RECORD_BYTES = 16  # bytes of a larger pickle for each further one; a tensor has six records and about a hundred bytes
KEYS = (str, int, float, bytes, type(None))  # what is hashed; bool is an int


class PickleError(ValueError):
    """A pickle that is cut, or has an instruction that no checkpoint needs."""


class Name:
    """A name that the pickle wants imported: "torch", "float32". It is not."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __repr__(self) -> str:
        return f"<{self.module}.{self.name}>"


class PersistentId:
    """A reference to something outside the pickle: in torch's files a storage."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Call:
    """A call that the pickle wants made, and what it does to the result. None of it is done.

    Attributes:
        function: what would be called, mostly a `Name`.
        arguments: what it would be given.
        state: what the result's `__setstate__` would be given; None where nothing is.
        items: what would be appended to it.
        pairs: the keys and values that it would be given as a mapping.
    """

    __slots__ = ("arguments", "function", "items", "pairs", "state")

    def __init__(self, function: Any, arguments: Any) -> None:
        self.function, self.arguments = function, arguments
        self.state: Any = None
        self.items: Sequence[Any] = ()  # lists of their own only where they are needed: a million records are many
        self.pairs: Sequence[tuple[Any, Any]] = ()

    def __repr__(self) -> str:
        return f"{self.function!r}(...)" if isinstance(self.function, Name) else "<a call>"


def is_safe_key(key: Any) -> bool:
    """Whether it can be hashed by the ten thousand: of longer integers, any number can have one and the same hash."""
    return isinstance(key, KEYS) and not (isinstance(key, int) and key.bit_length() > 64)


def _longer(values: Sequence[Any], more: Iterable[Any]) -> list[Any]:
    """The list with more in it; a new one in the place of an empty tuple."""
    made = values if isinstance(values, list) else []
    made.extend(more)
    return made


class Data(dict[Any, Any]):
    """A dict of the pickle. Keys that a stranger's file could make slow or dangerous to hash stand in `others`."""

    __slots__ = ("others",)

    def __init__(self) -> None:
        self.others: Sequence[tuple[Any, Any]] = ()

    def put(self, key: Any, value: Any) -> None:
        """Set a key, or keep the pair aside."""
        if isinstance(key, memoryview):
            key = str(key, "latin1")
        if is_safe_key(key):
            self[key] = value
        else:
            self.others = _longer(self.others, [(key, value)])


def parse_pickle(given: bytes | memoryview, at: int = 0) -> tuple[Any, int]:
    """Follow one pickle, of any protocol and of Python 2 too.

    Args:
        given: the bytes that it stands in. Strings from `LONG` bytes on are views of them.
        at: where it starts.

    Returns:
        What it holds, and where its end is.

    Raises:
        PickleError: it is cut, or asks for what no checkpoint needs.
    """
    data = memoryview(given)
    machine = _Machine(data)
    stack, memo, steps, from_bytes = machine.stack, machine.memo, STEPS, int.from_bytes
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
            else:
                at = steps[code](machine, at + 1)
    except (IndexError, KeyError, struct.error, UnicodeError) as error:
        raise PickleError(f"the pickle is cut or damaged at byte {at}") from error


def persistent_ids(value: Any) -> Iterator[PersistentId]:
    """Every reference to something outside that stands in a value of `parse_pickle`, once."""
    waiting, seen = [value], set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, str | int | float | bytes | None) or id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, PersistentId):
            yield item
        elif isinstance(item, list | tuple):
            waiting.extend(item)
        elif isinstance(item, Data):
            waiting.extend(part for pair in (*item.items(), *item.others) for part in pair)
        elif isinstance(item, Call):
            waiting.extend((item.function, item.arguments, item.state, *item.items))
            waiting.extend(part for pair in item.pairs for part in pair)


class _Machine:
    """The stack, the places in it where marks are, and the memo."""

    __slots__ = ("data", "made", "marks", "memo", "most", "size", "stack")

    def __init__(self, data: memoryview) -> None:
        self.data, self.size, self.made = data, len(data), 0
        self.most = RECORDS + self.size // RECORD_BYTES
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def push(self, record: Any) -> None:
        """Put a container or a call on the stack. Of these there are no more than a checkpoint of this size has."""
        self.made += 1
        if self.made > self.most:
            raise PickleError(f"the pickle has more than {self.most:,} lists, dicts, tuples and calls")
        self.stack.append(record)

    def marked(self) -> list[Any]:
        """The values above the last mark, which leave the stack."""
        start = self.marks.pop()
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


Step = Callable[[_Machine, int], int]


def _binary_text(width: int) -> Step:
    def step(run: _Machine, at: int) -> int:
        start, end = run.piece(at, width)
        run.stack.append(str(run.data[start:end], "utf-8", "backslashreplace"))
        return end

    return step


def _binary_bytes(width: int, text: bool = False) -> Step:
    """Bytes; with `text` a string of Python 2, which is either: it becomes text where it is short."""

    def step(run: _Machine, at: int) -> int:
        start, end = run.piece(at, width)
        piece = run.data[start:end]
        run.stack.append(piece if end - start > LONG else str(piece, "latin1") if text else bytes(piece))
        return end

    return step


def _number(layout: str) -> Step:
    unpack, size = struct.Struct(layout).unpack_from, struct.calcsize(layout)

    def step(run: _Machine, at: int) -> int:
        run.stack.append(unpack(run.data, at)[0])
        return at + size

    return step


def _binary_long(width: int) -> Step:
    def step(run: _Machine, at: int) -> int:
        start, end = run.piece(at, width)
        if end - start > DIGITS:
            raise PickleError(f"the pickle has an integer of {end - start} bytes at byte {at}")
        run.stack.append(int.from_bytes(run.data[start:end], "little", signed=True))
        return end

    return step


def _written(read: Callable[[bytes], Any]) -> Step:
    """A value that is written as a line of text."""

    def step(run: _Machine, at: int) -> int:
        line, end = run.line(at)
        try:
            run.stack.append(read(line))
        except ValueError as error:
            raise PickleError(f"the pickle has no value at byte {at}") from error
        return end

    return step


def _written_integer(line: bytes) -> int | bool:
    if len(line) > DIGITS:
        raise PickleError(f"the pickle has an integer of {len(line)} digits")
    if line in (b"00", b"01"):  # how protocols 0 and 1 write False and True
        return line == b"01"
    return int(line.rstrip(b"L"))


def _written_float(line: bytes) -> float:
    if len(line) > DIGITS:
        raise PickleError(f"the pickle has a number of {len(line)} digits")
    return float(line)


def _written_string(line: bytes) -> str:
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise PickleError("the pickle has a string without quotes")
    return str(codecs.escape_decode(line[1:-1])[0], "latin1")


def _written_text(line: bytes) -> str:
    return without_halves(str(line, "raw-unicode-escape", "backslashreplace"))


def without_halves(text: str) -> str:
    """Text that can be written as UTF-8: half of a pair of surrogates becomes its escape."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _constant(value: Any) -> Step:
    def step(run: _Machine, at: int) -> int:
        run.stack.append(value)
        return at

    return step


def _make(kind: Callable[[], Any]) -> Step:
    def step(run: _Machine, at: int) -> int:
        run.push(kind())
        return at

    return step


def _mark(run: _Machine, at: int) -> int:
    run.marks.append(len(run.stack))
    return at


def _pop(run: _Machine, at: int) -> int:
    if run.marks and run.marks[-1] == len(run.stack):
        run.marks.pop()
    else:
        run.stack.pop()
    return at


def _pop_mark(run: _Machine, at: int) -> int:
    run.marked()
    return at


def _duplicate(run: _Machine, at: int) -> int:
    run.stack.append(run.stack[-1])
    return at


def _memo_step(width: int, put: bool) -> Step:
    def step(run: _Machine, at: int) -> int:
        index = int.from_bytes(run.data[at : at + width], "little")
        if put:
            run.memo[index] = run.stack[-1]
        else:
            run.stack.append(run.memo[index])
        return at + width

    return step


def _written_memo(put: bool) -> Step:
    def step(run: _Machine, at: int) -> int:
        line, end = run.line(at)
        if not line.isdigit() or len(line) > 10:
            raise PickleError(f"the pickle names no place in its memo at byte {at}")
        if put:
            run.memo[int(line)] = run.stack[-1]
        else:
            run.stack.append(run.memo[int(line)])
        return end

    return step


def _tuple_of(count: int) -> Step:
    def step(run: _Machine, at: int) -> int:
        values = tuple(run.stack[-count:])
        if len(values) < count:
            raise IndexError
        del run.stack[-count:]
        run.push(values)
        return at

    return step


def _gather(kind: Callable[[list[Any]], Any]) -> Step:
    """Something made of all that is above the last mark."""

    def step(run: _Machine, at: int) -> int:
        values = run.marked()
        run.push(kind(values))
        return at

    return step


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
        target.items = _longer(target.items, values)
    elif isinstance(target, list):
        target.extend(values)
    else:
        raise PickleError(f"the pickle appends to a {type(target).__name__}")


def _update(target: Any, values: list[Any]) -> None:
    pairs = _in_pairs(values)
    if isinstance(target, Call):
        target.pairs = _longer(target.pairs, pairs)
    elif isinstance(target, Data):
        for key, value in pairs:
            target.put(key, value)
    else:
        raise PickleError(f"the pickle sets keys of a {type(target).__name__}")


def _change(how: Callable[[Any, list[Any]], None], count: int = 0) -> Step:
    """Change the value below by `count` values, or by those above the last mark."""

    def step(run: _Machine, at: int) -> int:
        if count:
            values = run.stack[-count:]
            del run.stack[-count:]
        else:
            values = run.marked()
        how(run.stack[-1], values)
        return at

    return step


def _set_state(target: Any, values: list[Any]) -> None:
    if not isinstance(target, Call) or target.state is not None:
        kind = "an object twice" if isinstance(target, Call) else f"a {type(target).__name__}"
        raise PickleError(f"the pickle sets the state of {kind}")
    target.state = values[0]


def _reduce(run: _Machine, at: int) -> int:
    arguments, function = run.stack.pop(), run.stack.pop()
    run.push(Call(function, arguments))
    return at


def _reduce_with_keywords(run: _Machine, at: int) -> int:
    keywords, arguments, function = run.stack.pop(), run.stack.pop(), run.stack.pop()
    run.push(Call(function, (arguments, keywords)))
    return at


def _instance(run: _Machine, at: int) -> int:
    module, at = run.line(at)
    name, at = run.line(at)
    run.push(Call(Name(module.decode(), name.decode()), tuple(run.marked())))
    return at


def _name(module: Any, name: Any) -> Name:
    if not isinstance(module, str) or not isinstance(name, str):
        raise PickleError("the pickle names something by what is no text")
    return Name(module, name)


def _global(run: _Machine, at: int) -> int:
    module, at = run.line(at)
    name, at = run.line(at)
    run.stack.append(Name(module.decode(), name.decode()))
    return at


def _stack_global(run: _Machine, at: int) -> int:
    name, module = run.stack.pop(), run.stack.pop()
    run.stack.append(_name(module, name))
    return at


def _persistent(run: _Machine, at: int) -> int:
    run.stack[-1] = PersistentId(run.stack[-1])
    return at


def _refuse(run: _Machine, at: int) -> int:
    raise PickleError(f"the pickle has the instruction {run.data[at - 1]:#04x} at byte {at - 1}, which none needs")


BINGET, MEMOIZE, LONG_BINPUT, BININT1, STOP = ord("h"), 0x94, ord("r"), ord("K"), ord(".")
STEPS: list[Step] = [_refuse] * 256
for _code, _step in {
    b"\x80": lambda run, at: at + 1,  # PROTO
    b"\x95": lambda run, at: at + 8,  # FRAME, a hint for buffering
    b"N": _constant(None), b"\x88": _constant(True), b"\x89": _constant(False), b")": _constant(()),
    b"]": _make(list), b"}": _make(Data), b"\x8f": _make(lambda: Call(Name("builtins", "set"), ())),
    b"M": _number("<H"), b"J": _number("<i"), b"G": _number(">d"),
    b"\x8a": _binary_long(1), b"\x8b": _binary_long(4),
    b"I": _written(_written_integer), b"L": _written(_written_integer), b"F": _written(_written_float),
    b"S": _written(_written_string), b"V": _written(_written_text),
    b"U": _binary_bytes(1, text=True), b"T": _binary_bytes(4, text=True),
    b"C": _binary_bytes(1), b"B": _binary_bytes(4), b"\x8e": _binary_bytes(8), b"\x96": _binary_bytes(8),
    b"\x8c": _binary_text(1), b"X": _binary_text(4), b"\x8d": _binary_text(8),
    b"(": _mark, b"0": _pop, b"1": _pop_mark, b"2": _duplicate,
    b"q": _memo_step(1, put=True), b"j": _memo_step(4, put=False),
    b"p": _written_memo(put=True), b"g": _written_memo(put=False),
    b"\x85": _tuple_of(1), b"\x86": _tuple_of(2), b"\x87": _tuple_of(3), b"t": _gather(tuple),
    b"l": _gather(list), b"d": _gather(_as_dict),
    b"\x91": _gather(lambda values: Call(Name("builtins", "frozenset"), (values,))),
    b"a": _change(_extend, 1), b"e": _change(_extend), b"\x90": _change(_extend),
    b"s": _change(_update, 2), b"u": _change(_update),
    b"b": _change(_set_state, 1), b"R": _reduce, b"\x81": _reduce, b"\x92": _reduce_with_keywords,
    b"i": _instance, b"o": _gather(lambda values: Call(values[0], tuple(values[1:]))),
    b"c": _global, b"\x93": _stack_global, b"Q": _persistent,
    b"P": _written(lambda line: PersistentId(str(line, "latin1"))),
}.items():  # fmt: skip
    STEPS[_code[0]] = _step
