"""What a pickle may ask for, looked at before it is run.

A pickle is a program of a few dozen instructions. `unpickler` sees to what its names mean; but the instructions alone
can bring a process down: a memo index takes as much memory as it says, tuples that hold one another twice take for ever
to hash, tuples in tuples overflow the stack, and copies of copies fill the memory. So the program is followed here once
without values, only with their sizes.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["FRAME", "Argument", "check_program"]

INSTRUCTIONS = 3_000_000  # a tensor takes about forty, a number in a list two
CALLS = 300_000  # a tensor takes three
CONTAINERS = 200_000  # but for those that calls make
REUSED = 4_000_000  # values taken from the memo, with all that is in them
DEPTH = 500
TEXT = 64  # bytes; what is longer counts as several values where it is taken from the memo

# Instruction -> bytes of its argument, or one of pickletools' negative numbers; and those -> bytes of the length before
# an argument that has one.
ARGUMENTS = [-9] * 256
for _info in pickletools.opcodes:
    ARGUMENTS[ord(_info.code)] = _info.arg.n if _info.arg else 0
LENGTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
LINES = {ord("c"): 2, ord("i"): 2}

MARK, STOP, BINPUT, FRAME = ord("("), ord("."), ord("q"), 0x95

Cell = list[int]
"""Of a value: how many values it is made of, and how deep they lie in one another; depth -1 for one long text."""

ATOM: Cell = [1, 0]


class Argument(NamedTuple):
    """A long argument of an instruction.

    Args:
        code: the instruction.
        at: where it stands.
        start: where its argument starts.
        end: where the next instruction stands.
    """

    code: int
    at: int
    start: int
    end: int


def check_program(data: memoryview, long: int = 1 << 62) -> list[Argument]:
    """Follow the pickle that `data` starts with.

    Args:
        data: the pickle, and perhaps more.
        long: bytes from which on an argument is returned.

    Returns:
        The long arguments, those of all `FRAME` instructions, and last that of `STOP`.

    Raises:
        pickle.UnpicklingError: it is cut, or asks for more than weights need.
    """
    run = _Run(data)
    stack, memo, size, found = run.stack, run.memo, len(data), run.arguments
    arguments, steps = ARGUMENTS, STEPS
    at = 0
    try:
        for _ in range(INSTRUCTIONS):
            code = data[at]
            first = at + 1
            length = arguments[code]
            if length < 0:
                first, length = _argument(data, first, code, length)
                if length >= long:
                    found.append(Argument(code, at, first, first + length))
            at = first + length
            if at > size:
                break
            step = steps[code]
            if step is not None:
                step(run, first)
            elif code == BINPUT:  # with MARK and what puts a value on the stack, it is two thirds of a program
                memo[data[first]] = stack[-1]
            elif code == MARK:
                run.marks.append(len(stack))
            else:
                stack.append(ATOM if length <= TEXT else [length >> 4, -1])
            if code == STOP:
                return [*found, Argument(code, at - 1, at, at)]
        else:
            raise _refused(f"{INSTRUCTIONS} instructions")
    except (IndexError, KeyError, ValueError) as error:
        raise pickle.UnpicklingError("the pickle is cut, or none") from error
    raise pickle.UnpicklingError("the pickle is cut, or none")


def _argument(data: memoryview, first: int, code: int, kind: int) -> tuple[int, int]:
    """Where the argument of an instruction starts, and how long it is."""
    if kind == pickletools.UP_TO_NEWLINE:
        end = first
        for _ in range(LINES.get(code, 1)):
            end = _line_end(data, end)
        return first, end - first
    start = first + LENGTHS[kind]
    return start, int.from_bytes(data[first:start], "little")


def _line_end(data: memoryview, start: int) -> int:
    """Behind the next line end; behind the data where there is none."""
    step = 1 << 8
    while start < len(data):
        found = bytes(data[start : start + step]).find(b"\n")
        if found >= 0:
            return start + found + 1
        start, step = start + step, min(2 * step, 1 << 20)
    return len(data) + 1


def _refused(what: str) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(f"the pickle asks for more than weights need: over {what}")


class _Run:
    """A program that is followed: what would be on its stack and in its memo, and what it has used up."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.stack: list[Cell] = []
        self.marks: list[int] = []
        self.memo: dict[int, Cell] = {}
        self.arguments: list[Argument] = []
        self.calls = self.containers = self.reused = 0

    def put(self, index: int) -> None:
        if index > INSTRUCTIONS:
            raise _refused(f"{INSTRUCTIONS} places in its memo")
        self.memo[index] = self.stack[-1]

    def get(self, cell: Cell) -> None:
        self.stack.append(cell)
        self.reused += cell[0]
        if self.reused > REUSED:
            raise _refused(f"{REUSED} values, most of them copies")

    def take(self, count: int) -> list[Cell]:
        """The uppermost values, which leave the stack."""
        if len(self.stack) < count:
            raise IndexError
        start = len(self.stack) - count
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def marked(self) -> list[Cell]:
        return self.take(len(self.stack) - self.marks.pop())

    def make(self, parts: list[Cell]) -> None:
        """Something new that is made of these."""
        self.stack.append([1, 0])
        self.add(parts)

    def add(self, parts: list[Cell]) -> None:
        """These go into what is uppermost then."""
        cell = self.stack[-1]
        if cell is ATOM:
            cell = self.stack[-1] = [1, 0]
        for part in parts:
            if part is ATOM:
                cell[0] += 1
                cell[1] = cell[1] or 1
            else:
                count, depth = part
                cell[0] += 1 if depth < 0 else count
                cell[1] = max(cell[1], depth + 1)
        if cell[1] > DEPTH:
            raise _refused(f"{DEPTH} containers in one another")
        if cell[0] > REUSED:
            raise _refused(f"{REUSED} values, most of them copies")

    def call(self, parts: list[Cell]) -> None:
        self.calls += 1
        if self.calls > CALLS:
            raise _refused(f"{CALLS} calls")
        self.make(parts)

    def next_buffer(self) -> None:
        raise pickle.UnpicklingError("the pickle needs buffers that are not in the file")

    def container(self) -> None:
        self.containers += 1
        if self.containers > CONTAINERS:
            raise _refused(f"{CONTAINERS} lists, dicts and sets")
        self.stack.append([1, 0])

    def number(self, first: int, size: int) -> int:
        return int.from_bytes(self.data[first : first + size], "little")

    def line(self, first: int) -> int:
        return int(bytes(self.data[first : _line_end(self.data, first) - 1]))


Step = Callable[[_Run, int], object]

# By pickletools' names. What isn't here puts one value on the stack; MARK and BINPUT are done by `check_program`.
BY_NAME: dict[str, Step] = {
    **dict.fromkeys(("PROTO", "STOP", "READONLY_BUFFER"), lambda run, first: None),
    "FRAME": lambda run, first: run.arguments.append(Argument(FRAME, first - 1, first, first + 8)),
    "NEXT_BUFFER": lambda run, first: run.next_buffer(),
    "POP": lambda run, first: run.take(1) if len(run.stack) > (run.marks or [0])[-1] else run.marks.pop(),
    "POP_MARK": lambda run, first: run.marked(),
    "DUP": lambda run, first: run.get(run.stack[-1]),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"), lambda run, first: run.container()),
    **dict.fromkeys(("LIST", "DICT", "TUPLE"), lambda run, first: run.make(run.marked())),
    "FROZENSET": lambda run, first: run.call(run.marked()),
    "TUPLE1": lambda run, first: run.make(run.take(1)),
    "TUPLE2": lambda run, first: run.make(run.take(2)),
    "TUPLE3": lambda run, first: run.make(run.take(3)),
    "APPEND": lambda run, first: run.add(run.take(1)),
    "SETITEM": lambda run, first: run.add(run.take(2)),
    **dict.fromkeys(("APPENDS", "SETITEMS", "ADDITEMS"), lambda run, first: run.add(run.marked())),
    "BUILD": lambda run, first: run.add(run.take(1)),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda run, first: run.call(run.take(2))),
    "NEWOBJ_EX": lambda run, first: run.call(run.take(3)),
    **dict.fromkeys(("INST", "OBJ"), lambda run, first: run.call(run.marked())),
    "BINPERSID": lambda run, first: run.call(run.take(1)),
    "STACK_GLOBAL": lambda run, first: run.make(run.take(2)),
    "GET": lambda run, first: run.get(run.memo[run.line(first)]),
    "BINGET": lambda run, first: run.get(run.memo[run.data[first]]),
    "LONG_BINGET": lambda run, first: run.get(run.memo[run.number(first, 4)]),
    "PUT": lambda run, first: run.put(run.line(first)),
    "LONG_BINPUT": lambda run, first: run.put(run.number(first, 4)),
    "MEMOIZE": lambda run, first: run.put(len(run.memo)),
}
STEPS: list[Step | None] = [None] * 256
for _info in pickletools.opcodes:
    STEPS[ord(_info.code)] = BY_NAME.get(_info.name)
