"""Numbers in the names of a file, which anybody may have written."""

from __future__ import annotations

__all__ = ["DIGITS", "number_in"]

DIGITS = 9  # no layer has a higher number; Python refuses to read those of thousands of digits


def number_in(part: str) -> int | None:
    """The number that a part of a name is; None where it is none, or longer than a layer's can be."""
    return int(part) if part.isascii() and part.isdigit() and len(part) <= DIGITS else None
