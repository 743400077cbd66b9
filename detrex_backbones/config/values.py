"""What the text on the right of an override stands for."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["parse_value"]

_INT = re.compile(r"[+-]?(0|[1-9](_?[0-9])*)")
_FLOAT = re.compile(r"[+-]?(([0-9](_?[0-9])*)?\.[0-9](_?[0-9])*|[0-9](_?[0-9])*\.?)([eE][+-]?[0-9]+)?")
_WORDS = {"true": True, "false": False, "null": None}
_NOT_FINITE = re.compile(r"[+-]?(inf|nan)", re.IGNORECASE)


def parse_value(text: str) -> Any:
    """Parse the value of an override.

    `123` int; `1e-4`, `.1`, `inf` float; `true`, `false`, `null` in any case; `"123"` and `'123'` string;
    `[1, 2, {x: 3}]` list and dict; `${other.key}` interpolation; nothing the empty string; all else a string.

    Raises:
        ValueError: brackets or quotes don't match, or there are several values.
    """
    text = text.strip()
    if not text:
        return ""
    parser = _Parser(text)
    if text[0] in "[{'\"":
        value = parser.value("")
        parser.space()
        if parser.at < len(text):
            raise ValueError(f"there is {text[parser.at :]!r} after the end of the value")
        return value
    word = parser.bare(",")
    if parser.at < len(text):
        raise ValueError(f"there are several values; write [{text}] for a list, or quote it if it is one string")
    return scalar(word)


def scalar(word: str) -> Any:
    """The number, truth value, null or string that a bare word is."""
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    if _INT.fullmatch(word):
        return int(word)
    if _FLOAT.fullmatch(word) or _NOT_FINITE.fullmatch(word):
        # Leading zeros make it a name (007), unless a point or an exponent makes it a number.
        return float(word) if re.search(r"[.eEnN]", word) else word
    return word


class _Parser:
    """Reads a value from the text, from `at` on."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def space(self) -> None:
        while self.peek().isspace():
            self.at += 1

    def value(self, stops: str) -> Any:
        self.space()
        if self.peek() == "[":
            return self.items("]")
        if self.peek() == "{":
            return dict(self.items("}"))
        if self.peek() in ("'", '"'):
            return self.quoted()
        word = self.bare(stops)
        if not word:
            raise ValueError(f"a value is missing at character {self.at + 1}")
        return scalar(word)

    def items(self, end: str) -> list[Any]:
        """What stands in brackets: values, or pairs where they are braces."""
        found: list[Any] = []
        start = self.at
        self.at += 1
        self.space()
        while self.peek() != end:
            if found:
                self.expect(",", start)
            found.append(self.pair() if end == "}" else self.value(",]"))
            self.space()
            if self.peek() not in (",", end):
                self.expect(f"{end}", start)
        self.at += 1
        return found

    def pair(self) -> tuple[Any, Any]:
        self.space()
        key = self.quoted() if self.peek() in ("'", '"') else scalar(self.bare(":,}"))
        self.space()
        self.expect(":", self.at)
        if key == "" or key is None:
            raise ValueError(f"a key is missing before character {self.at}")
        return key, self.value(",}")

    def expect(self, character: str, start: int) -> None:
        if self.peek() != character:
            raise ValueError(f"{self.text[start:]!r} needs a {character!r} at character {self.at + 1}")
        self.at += 1

    def quoted(self) -> str:
        quote, start, out = self.peek(), self.at, ""
        self.at += 1
        while self.peek() != quote:
            if not self.peek():
                raise ValueError(f"the quote {quote} at character {start + 1} has no end")
            if self.peek() == "\\" and self.text[self.at + 1 : self.at + 2] in (quote, "\\"):
                self.at += 1
            out += self.peek()
            self.at += 1
        self.at += 1
        return out

    def bare(self, stops: str) -> str:
        """A word, up to one of the stops that is not inside ${...}."""
        start, depth = self.at, 0
        while self.peek() and (depth or self.peek() not in stops):
            if self.text.startswith("${", self.at):
                depth += 1
                self.at += 1
            elif depth and self.peek() in "{}":
                depth += 1 if self.peek() == "{" else -1
            self.at += 1
        if depth:
            raise ValueError(f"{self.text[start:]!r} has a '${{' without its '}}'")
        return self.text[start : self.at].strip()
