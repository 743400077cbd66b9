"""A pickle as data: its instructions are followed, and nothing that they name is imported, called or hashed.

A pickle is a program for a stack machine. `parse_pickle` is that machine without its powers: where Python would import
a name it keeps a `Name`, where Python would call something it keeps a `Call`. What comes out is plain data (None, bool,
int, float, str, bytes, list, dict, tuple) and these records. Each instruction costs time and memory in proportion to
the bytes that it stands in, and a value that the pickle uses again is shared, never copied. `rebuild` makes tensors of
it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from detrex_backbones.checkpoint.read.pickle_arguments import PUTS, READERS, by_code, global_name
from detrex_backbones.checkpoint.read.records import Call, Data, Name, PersistentId, PickleError, longer

__all__ = ["parse_pickle"]

RECORDS = 1_000_000  # lists, dicts, tuples and calls in any pickle: an instruction of one byte makes one
RECORD_BYTES = 16  # bytes of a larger pickle for each further one; a tensor has six records and about a hundred bytes


def parse_pickle(
    given: bytes | memoryview, at: int = 0, references: list[PersistentId] | None = None
) -> tuple[Any, int]:
    """Follow one pickle, of any protocol and of Python 2 too.

    Args:
        given: the bytes that it stands in. Those that are long stay views of them.
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
    function, at = global_name(run, at)
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


BINGET, MEMOIZE, LONG_BINPUT, BININT1, STOP = ord("h"), 0x94, ord("r"), ord("K"), ord(".")
OPERATIONS: dict[int, Operation] = by_code({
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
