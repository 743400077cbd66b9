"""Words of a stranger's file, made harmless for the place where they are shown or written."""

from __future__ import annotations

import json
from collections.abc import Iterable

__all__ = [
    "LONGEST_PATH",
    "SHOWN",
    "counted",
    "shorten",
    "visible",
    "visible_in_cell",
    "visible_in_comment",
    "visible_json",
    "visible_lines",
]

SHOWN = 8  # names of a kind before "and N more"
LONGEST = 200  # characters of one name in a message
LONGEST_PATH = 4096  # characters of a path that is to be copied
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the beginning of a formula


def visible(text: object, longest: int = LONGEST) -> str:
    """One line in which every character can be seen, for terminals, messages and logs.

    Control characters, line ends, bidirectional marks and lone surrogates are written as Python escapes, so that a name
    can neither move the cursor, nor forge a line, nor fail to encode.

    Args:
        text: shown by `str`.
        longest: characters after which the middle is left out.
    """
    shown = _escaped(str(text))
    if len(shown) <= longest:
        return shown
    half = longest // 2 - 2
    return f"{shown[:half]}...{shown[-half:]}"


def visible_lines(text: object) -> str:
    """The same for text of several lines that are ours: line ends stay, and nothing is left out."""
    return "\n".join(map(_escaped, str(text).split("\n")))


def visible_in_comment(text: object) -> str:
    """The same for a comment or a docstring of Python: no quote and no backslash can end it."""
    return visible(text).replace("\\", "/").replace('"""', "'''").replace('"', "'")


def visible_in_cell(text: object) -> str:
    """The same for a cell of a CSV file: what a spreadsheet would run as a formula begins with an apostrophe."""
    shown = visible(text, longest=32_000)
    return f"'{shown}" if str(text).startswith(FORMULA) else shown


def visible_json(value: object) -> str:
    """JSON that is pure ASCII, and whose text can stand inside a page's script element."""
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def shorten(names: Iterable[object], count: int = SHOWN) -> str:
    """The first few names, made visible, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(map(visible, names[:count])) + more


def counted(number: int, noun: str, verb: str = "") -> str:
    """ "1 tensor is", "2 tensors are": a number, what is counted, in the singular, and a verb ("are", "have", "")."""
    words = noun if number == 1 or not noun else f"{noun}s"
    verb = {"are": "is", "have": "has"}.get(verb, verb) if number == 1 else verb
    return " ".join(filter(None, (f"{number:,}", words, verb)))


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )
