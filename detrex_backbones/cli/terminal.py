"""The one door to the terminal. Words of strangers' files pass it as letters: no terminal and no markup obeys them."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, NoReturn

from detrex_backbones.text import visible, visible_lines

__all__ = ["Parser", "escaped_logs", "flush_output", "print_error", "print_json", "print_note", "print_table", "say"]

WIDTH = 80
LONGEST_CELL = 1000  # characters


def say(text: object = "", end: str = "\n") -> None:
    """On standard output: line ends are kept, everything else that can't be seen is written as Python escapes."""
    _write(sys.stdout, visible_lines(text) + end)


def print_error(error: object, notes: Sequence[str] = ()) -> None:
    """On standard error: "error: ...", further lines indented, so that none of them passes for one of ours."""
    _write(sys.stderr, "\n".join(f"{_indented(part)}" for part in [f"error: {error}", *notes]) + "\n")


def print_note(text: str) -> None:
    """On standard error, in lines of 80 columns."""
    lines = textwrap.wrap(
        visible_lines(text), WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    _write(sys.stderr, "\n".join(lines) + "\n")


def print_json(content: Any) -> None:
    """As JSON on standard output, in ASCII."""
    _write(sys.stdout, json.dumps(content, indent=2) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Aligned columns: text on the left, numbers on the right. Nothing in a cell is markup."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[index], int | float) for row in rows)
        table.add_column(Text(column), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(value, LONGEST_CELL)) for value in row))
    console = Console(color_system=None, markup=False, highlight=False, emoji=False)
    with console.capture() as captured:
        console.print(table)
    # The rule under the titles is not in ASCII.
    lines = captured.get() if _takes(sys.stdout, "─") else captured.get().replace("─", "-")
    say(lines, end="")


class Parser(argparse.ArgumentParser):
    """argparse, whose messages show file names that a shell's pattern found."""

    def error(self, message: str) -> NoReturn:
        """The usage and one line."""
        super().error(visible(message, LONGEST_CELL))

    def _print_message(self, message: str, file: Any = None) -> None:
        if message:
            _write(file or sys.stderr, visible_lines(message))


@contextmanager
def escaped_logs() -> Iterator[None]:
    """Log messages and warnings pass the door, too; each begins with its level, further lines are indented."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    usual = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"{_encodable(sys.stderr, _indented(f'WARNING: {message}'))}\n"
    try:
        yield
    finally:
        warnings.formatwarning = usual


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _encodable(sys.stderr, _indented(super().format(record)))


def flush_output() -> OSError | None:
    """Write out what is buffered. A reader that has gone has seen enough, as `head` has; other errors are given back.

    What could not be written then goes nowhere, or Python would try once more at its end.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return None if isinstance(error, BrokenPipeError) else error
    return None


def _indented(text: object) -> str:
    return visible_lines(text).replace("\n", "\n  ")


def _write(stream: IO[str] | None, text: str) -> None:
    if stream is not None:  # as where it was closed before the program started
        stream.write(_encodable(stream, text))


def _encodable(stream: IO[str] | None, text: str) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _takes(stream: IO[str] | None, text: str) -> bool:
    return _encodable(stream, text) == text
