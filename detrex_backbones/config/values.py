"""What the text on the right of an override stands for, and the text that stands for a value."""

from __future__ import annotations

import ast
import math
import re
from pathlib import Path
from typing import Any

__all__ = ["escaped", "parse_value", "quoted", "written_leaf"]

_INT = re.compile(r"[+-]?(0|[1-9](_?[0-9])*)")
_FLOAT = re.compile(r"[+-]?(([0-9](_?[0-9])*)?\.[0-9](_?[0-9])*|[0-9](_?[0-9])*\.?)([eE][+-]?[0-9]+)?")
_WORDS = {"true": True, "false": False, "null": None}
_NOT_FINITE = re.compile(r"[+-]?(inf|nan)", re.IGNORECASE)
_CALL = re.compile(r"[A-Za-z_][\w.]*\(")
_MADE = {"pathlib.Path(": Path, "float(": float}  # the calls by which `written_leaf` writes a value
_BYTES = re.compile(r"""b('([^'\\]|\\.)*'|"([^"\\]|\\.)*")""")
_PREFIXED = re.compile(r"""([rRuUfFbB]{1,2})(['"]).*\2""", re.DOTALL)
_ESCAPE = re.compile(r"\\([\\()\[\]{}:=, \t])")  # those of Hydra's grammar
_CODE = re.compile(r"\\(u[0-9a-fA-F]{4}|U000[0-9a-fA-F]{5}|U0010[0-9a-fA-F]{4})")


def parse_value(text: str) -> Any:
    """Parse the value of an override.

    `123` int; `1e-4`, `.1`, `inf` float; `true`, `false`, `null` in any case, and Python's `None`; `"123"` and `'123'`
    string, in which a backslash before the quote, before another or before `uXXXX` is an escape; `[1, 2, {x: 3}]` list
    and dict, `(1, 2)` and `(1,)` tuple; `${other.key}` interpolation; nothing the empty string; all else a string.
    What `LazyConfig.to_py` writes reads back as the value that it was written for.

    Raises:
        ValueError: brackets or quotes don't match, there are several values, or Hydra's grammar would read the text as
            something else: a function such as `int(1e5)`, an escape outside of quotes.
    """
    text = text.strip()
    if not text:
        return ""
    parser = _Parser(text)
    if text[0] in "[{('\"" or text.startswith(tuple(_MADE)) or _BYTES.fullmatch(text):
        value = parser.value("")
        parser.space()
        if parser.at < len(text):
            raise ValueError(
                f"there is {text[parser.at :]!r} after the end of the value; write {quoted(text)} for a string"
            )
        return value
    word = parser.bare(",")
    if parser.at < len(text):
        lists = f"write [{text}] for a list, or " if _can_be_read(f"[{text}]") else ""
        raise ValueError(f"there are several values; {lists}quote it if it is one string: {quoted(text)}")
    return scalar(word)


def _can_be_read(text: str) -> bool:
    try:
        parse_value(text)
    except (ValueError, RecursionError):
        return False
    return True


def scalar(word: str) -> Any:
    """The number, truth value, null or string that a bare word is."""
    if word.lower() in _WORDS or word == "None":
        return _WORDS.get(word.lower())
    if _INT.fullmatch(word):
        return int(word)
    if _FLOAT.fullmatch(word) or _NOT_FINITE.fullmatch(word):
        # Leading zeros make it a name (007), unless a point or an exponent makes it a number.
        return float(word) if re.search(r"[.eEnN]", word) else word
    if _CALL.match(word) and word.endswith(")"):
        raise ValueError(
            f"{word!r} is written like a function of Hydra's grammar, and none is called here; write the value that it "
            f"gives, or {quoted(word)} for a string"
        )
    if _PREFIXED.fullmatch(word):
        raise ValueError(f"{word!r} has letters before its quote; write the text in quotes alone")
    return word


def quoted(text: str) -> str:
    """The text in double quotes, as Python and `parse_value` read it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(letter if letter.isprintable() else _code(letter) for letter in escaped) + '"'


def _code(letter: str) -> str:
    return f"\\u{ord(letter):04x}" if ord(letter) <= 0xFFFF else f"\\U{ord(letter):08x}"


def escaped(text: str) -> str:
    """The text as a config holds it, in which `${` begins an interpolation unless a backslash stands before it."""
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + "\\${", text)


def written_leaf(value: Any) -> str | None:
    """The text of a value that is no container, as Python and `parse_value` read it; None if it has no such text."""
    if value is None or type(value) in (bool, int, bytes):
        return repr(value)
    if type(value) is float:
        return repr(value) if math.isfinite(value) else f'float("{value}")'
    if isinstance(value, Path):
        return f"pathlib.Path({quoted(str(value))})"
    if type(value) is str:
        return quoted(escaped(value))
    return None


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
        if self.peek() == "(":
            return self.in_parentheses()
        if self.peek() == "{":
            return dict(self.items("}"))
        if self.peek() in ("'", '"'):
            return self.quoted()
        if found := _BYTES.match(self.text, self.at):
            self.at = found.end()
            return _bytes(found[0])
        if found := _CALL.match(self.text, self.at):
            return self.made(found[0])
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
                self.space()
                if self.peek() == end:  # as Python has it, and black writes it
                    break
            found.append(self.pair() if end == "}" else self.value("," + end))
            self.space()
            if self.peek() not in (",", end):
                self.expect(f"{end}", start)
        self.at += 1
        return found

    def in_parentheses(self) -> Any:
        """A tuple, or the value itself where one stands there without a comma."""
        found = self.items(")")
        comma = self.text[: self.at - 1].rstrip().endswith(",")
        return found[0] if len(found) == 1 and not comma else tuple(found)

    def made(self, call: str) -> Any:
        """A value that is written as a call: `pathlib.Path("a/b")`, `float("inf")`."""
        start = self.at
        self.at += len(call)
        self.space()
        if call not in _MADE or self.peek() not in ("'", '"'):
            raise ValueError(
                f"{self.text[start:]!r} is written like a function of Hydra's grammar, and none is called here; write "
                f"the value that it gives, or put quotes around a string"
            )
        value = self.quoted()
        self.space()
        self.expect(")", start)
        return _MADE[call](value)

    def pair(self) -> tuple[Any, Any]:
        self.space()
        in_quotes = self.peek() in ("'", '"')
        as_value = in_quotes or self.text.startswith(tuple(_MADE), self.at) or _BYTES.match(self.text, self.at)
        key = self.value("") if as_value else scalar(self.bare(":,}"))
        self.space()
        self.expect(":", self.at)
        if key is None or (key == "" and not in_quotes):
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
            if code := _CODE.match(self.text, self.at):
                out += chr(int(code[1][1:], 16))
                self.at = code.end()
                continue
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
            elif not depth and (escape := _ESCAPE.match(self.text, self.at)):
                meant = _ESCAPE.sub(r"\1", self.text)
                cure = f"; write {quoted(meant)}" if not start else ""
                raise ValueError(f"{escape[0]!r} is an escape outside of quotes, where none is read{cure}")
            self.at += 1
        if depth:
            raise ValueError(f"{self.text[start:]!r} has a '${{' without its '}}'")
        return self.text[start : self.at].strip()


def _bytes(text: str) -> bytes:
    try:
        return bytes(ast.literal_eval(text))
    except SyntaxError as error:
        raise ValueError(f"{text} can't be read: {error.msg}") from error
