"""What a pickle is made into where it is no plain data: records of names and calls, which do nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

__all__ = [
    "KEYS",
    "Call",
    "Data",
    "Name",
    "PersistentId",
    "PickleError",
    "calls",
    "is_safe_key",
    "longer",
    "told",
    "without_halves",
]

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


def longer(values: Sequence[Any], more: Iterable[Any]) -> list[Any]:
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
            self.others = longer(self.others, [(key, value)])


def without_halves(text: str) -> str:
    """Text that can be written as UTF-8: half of a pair of surrogates becomes its escape."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def calls(record: Any, module: str, name: str) -> bool:
    """Whether a record is a call of this function."""
    function = record.function if isinstance(record, Call) else None
    return isinstance(function, Name) and (function.module, function.name) == (module, name)


def told(record: Any) -> str:
    """A record for a message. Only names are shown: containers can hold one another so often that no text ends."""
    return repr(record) if isinstance(record, Name) else f"a {type(record).__name__}"
