"""Tables of names that are read both ways: a source's name on the left, this library's on the right."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from detrex_backbones.checkpoint.names.numbers import DIGITS
from detrex_backbones.errors import ArgumentError

__all__ = ["Names", "Pair", "checked_pairs"]

LEAVES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

NUMBER = re.compile(r"([0-9]+)")
PART = re.compile(r"\{(\w+?)([+-]\d+)?\}|(\d+)")
PLACEHOLDER = re.compile(r"\{(\w+?)([+-]\d+)?\}")


class Pair(NamedTuple):
    """A name of a source, and this library's name for the same tensor.

    `{leaf}` stands for weight, bias, running_mean, running_var or num_batches_tracked; every other placeholder for a
    number, the same on both sides: `layer{s}.{i}` and `res{s+1}.{i}`.

    Args:
        theirs: the source's name; "" where `also` is read and nothing is written.
        ours: this library's name.
        rank: only for tensors with so many dimensions; None for all.
        also: other names that sources use for the same tensor: read, never written.
    """

    theirs: str
    ours: str
    rank: int | None = None
    also: tuple[str, ...] = ()


def checked_pairs(pairs: Iterable[Sequence[Any]]) -> tuple[Pair, ...]:
    """The pairs of a table, which may be plain tuples.

    Raises:
        ArgumentError: something that is no pair of names, or a placeholder that has no number.
    """
    found = []
    for given in pairs:
        try:
            pair = Pair(*given) if not isinstance(given, str) else None
        except TypeError:
            pair = None
        if pair is None or not (isinstance(pair.theirs, str) and isinstance(pair.ours, str)):
            raise ArgumentError(f"{given!r} is no pair of names: Pair('layer{{s}}.{{leaf}}', 'res{{s+1}}.{{leaf}}').")
        ours = {name for name, *_ in PLACEHOLDER.findall(pair.ours)}
        for name in filter(None, (pair.theirs, *pair.also)):
            unknown = ours - {known for known, *_ in PLACEHOLDER.findall(name)}
            if unknown:
                raise ArgumentError(
                    f"Pair({name!r}, {pair.ours!r}): what is {{{min(unknown)}}}? A placeholder of our name must stand "
                    "in the source's name as well."
                )
        found.append(pair)
    return tuple(found)


class Names:
    """A table of pairs that translates in both directions; the first pair that fits is taken.

    A name is looked up by its text with every number replaced by "#", so the time does not grow with the table.
    """

    def __init__(self, pairs: Iterable[Pair]) -> None:
        pairs = tuple(pairs)
        self._read = _table(
            (name, pair.ours, pair.rank) for pair in pairs for name in (pair.theirs, *pair.also) if name
        )
        self._write = _table((pair.ours, pair.theirs, pair.rank) for pair in pairs if pair.theirs)

    def read(self, key: str, rank: int | None) -> str | None:
        """This library's name for a source's tensor of `rank` dimensions (None: of any); None where there is none."""
        return _translate(self._read, key, rank)

    def write(self, key: str, rank: int) -> str | None:
        """The source's name for this library's tensor of `rank` dimensions; None where the table has none."""
        return _translate(self._write, key, rank)


class _Row(NamedTuple):
    numbers: tuple[tuple[str, int], ...]  # of each number in the key: placeholder and offset, or "" and the literal
    result: tuple[str | tuple[str, int], ...]  # text, and placeholders with their offsets
    rank: int | None


def _table(rows: Iterable[tuple[str, str, int | None]]) -> dict[str, list[_Row]]:
    table: dict[str, list[_Row]] = defaultdict(list)
    for source, target, rank in rows:
        leaves = LEAVES if "{leaf}" in source else ("",)
        for leaf in leaves:
            template = source.replace("{leaf}", leaf)
            numbers = tuple(
                (found[1] or "", int(found[2] or 0) if found[1] else int(found[3])) for found in PART.finditer(template)
            )
            row = _Row(numbers, _pieces(target.replace("{leaf}", leaf)), rank)
            table[PART.sub("#", template)].append(row)
    return dict(table)


def _pieces(result: str) -> tuple[str | tuple[str, int], ...]:
    text, *rest = PLACEHOLDER.split(result)
    found: list[str | tuple[str, int]] = [text]
    for name, offset, behind in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        found += [(name, int(offset or 0)), behind]
    return tuple(found)


def _translate(table: dict[str, list[_Row]], key: str, rank: int | None) -> str | None:
    parts = NUMBER.split(key)
    rows = table.get("#".join(parts[::2]))
    if rows is None:
        return None
    numbers = [int(part) if len(part) <= DIGITS else None for part in parts[1::2]]
    for row in rows:
        if rank is None or row.rank in (None, rank):
            bound = _bind(row, numbers)
            if bound is not None:
                return "".join(
                    piece if isinstance(piece, str) else str(bound[piece[0]] + piece[1]) for piece in row.result
                )
    return None


def _bind(row: _Row, numbers: list[int | None]) -> dict[str, int] | None:
    if len(row.numbers) != len(numbers):  # a "#" of the file's own
        return None
    bound: dict[str, int] = {}
    for (placeholder, offset), number in zip(row.numbers, numbers, strict=True):
        if number is None:
            return None
        value = number - offset
        if value != 0 if not placeholder else bound.setdefault(placeholder, value) != value:
            return None
    return bound
