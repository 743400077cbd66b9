"""The one door to the terminal. Words of strangers' files pass it as letters: no terminal and no markup obeys them."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import shutil
import sys
import textwrap
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, NoReturn

from detrex_backbones.errors import closest
from detrex_backbones.text import visible, visible_lines

__all__ = [
    "HelpFormatter",
    "Parser",
    "escaped_logs",
    "flush_output",
    "output_width",
    "print_error",
    "print_json",
    "print_note",
    "print_table",
    "say",
    "say_paragraph",
    "width_of",
]

WIDTH, NARROWEST, WIDEST = 80, 60, 200  # columns: where there is no terminal, and at the least and the most
LONGEST_CELL = 1000  # characters
SHORT = 16  # characters of a name that always has a place beside its figures
FOLDED = 18  # characters that a column of text is left at the least
GAP = 3  # columns between those of a table, and one less at its edges; in a dense one it is one less
STAND_IN = 0xE000  # the first of the characters that mean nothing by themselves
BOLD, RED, YELLOW = "1", "1;31", "33"  # of ECMA-48
CHOICES = re.compile(r"invalid choice: '(.*)' \(choose from (.*)\)")


def width_of(stream: IO[str] | None) -> int:
    """Columns to write in: the terminal's, between 60 and 200; 80 where it is a file or a pipe, unless COLUMNS says."""
    return min(max(shutil.get_terminal_size((WIDTH, 24)).columns, NARROWEST), WIDEST) if _has_width(stream) else WIDTH


def output_width() -> int:
    """Columns of standard output."""
    return width_of(sys.stdout)


def say(text: object = "", end: str = "\n") -> None:
    """On standard output: line ends are kept, everything else that can't be seen is written as Python escapes."""
    _write(sys.stdout, visible_lines(text) + end)


def say_paragraph(text: str) -> None:
    """On standard output, in lines as wide as the terminal."""
    say(_wrapped(visible_lines(text), width_of(sys.stdout), ""))


def print_error(error: object, notes: Sequence[str] = ()) -> None:
    """On standard error: "error: ...", further lines indented, so that none of them passes for one of ours.

    Lines of the notes that were just shown as warnings, such as that of a misspelt argument, are not shown again.
    """
    notes = ["\n".join(line for line in note.split("\n") if line.strip() not in _warned) for note in notes]
    text = "\n".join(_indented(part) for part in [f"error: {error}", *filter(None, notes)])
    _write(sys.stderr, _told(sys.stderr, text) + "\n")


def print_note(text: str) -> None:
    """On standard error, in lines as wide as the terminal, one line in a pipe; nothing that was just a warning."""
    if text in _warned:
        return
    text = visible_lines(text)
    _write(sys.stderr, (_wrapped(text, width_of(sys.stderr), "    ") if _has_width(sys.stderr) else text) + "\n")


def print_json(content: Any) -> None:
    """As JSON on standard output, in ASCII."""
    _write(sys.stdout, json.dumps(content, indent=2) + "\n")


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    right: Collection[int] = (),
    dense: bool = False,
    last_whole: bool = False,
) -> None:
    """Aligned columns: text on the left, numbers on the right. Nothing in a cell is markup.

    Names are copied: a cell of the first column is never broken, but stands above its row where it is too long.

    Args:
        columns: their titles.
        rows: of cells.
        right: columns that are aligned on the right all the same.
        dense: leave less between columns.
        last_whole: the cells of the last column aren't broken either, but stand below their rows, behind its title.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    last = len(columns) - 1 if last_whole else 0
    numeric = {index for index in range(len(columns)) if all(isinstance(row[index], int | float) for row in rows)}
    numeric |= set(right)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=not dense, padding=(0, 1, 0, 0) if dense else (0, 1))
    for index, column in enumerate(columns):
        justify: Any = "right" if index in numeric else "left"
        table.add_column(Text(column), justify=justify, overflow="fold", no_wrap=index in (0, last))
    width = width_of(sys.stdout)
    cells = [[visible(value, LONGEST_CELL) for value in row] for row in rows]
    fixed = numeric | {0, last}
    apart: dict[str, str] = {}
    for index in sorted({0, last}):  # first what stands above; where that isn't enough, what stands below
        long = _too_long(columns, cells, index, fixed, width, GAP - dense)
        stand_ins = {name: chr(STAND_IN + len(apart) + number) for number, name in enumerate(long)}
        apart |= {
            mark: f"{name}\n " if index == 0 else f"\n  {columns[index]}{name}" for name, mark in stand_ins.items()
        }
        for row in cells:
            row[index] = stand_ins.get(row[index], row[index])
    for row in cells:
        table.add_row(*map(Text, row))
    console = Console(color_system=None, markup=False, highlight=False, emoji=False, width=width)
    with console.capture() as captured:
        console.print(table)
    # The rule under the titles is not in ASCII.
    lines = captured.get() if _takes(sys.stdout, "─") else captured.get().replace("─", "-")
    for mark, text in apart.items():
        lines = lines.replace(mark, text)
    lines = "\n".join(line.rstrip() for line in lines.split("\n"))
    _write(sys.stdout, _first_line_bold(visible_lines(lines)))


def _too_long(
    columns: Sequence[str], rows: Sequence[Sequence[str]], index: int, fixed: Collection[int], width: int, gap: int
) -> list[str]:
    """The cells of a column that have no place beside the others, of which those that aren't `fixed` can be folded."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    needed = [each if place in fixed else min(each, FOLDED) for place, each in enumerate(widths) if place != index]
    place = max(width - sum(needed) - gap * len(needed) - (gap - 1), SHORT)
    return list(dict.fromkeys(row[index] for row in rows if len(row[index]) > place))


class Parser(argparse.ArgumentParser):
    """argparse, whose messages show file names that a shell's pattern found."""

    def error(self, message: str) -> NoReturn:
        """The usage and one line."""
        choice = CHOICES.search(message)
        hint = closest(choice[1], re.findall(r"[^', ]+", choice[2]), count=1) if choice else ""
        super().error(visible(message, LONGEST_CELL) + hint)

    def unknown_options(self, arguments: Sequence[str]) -> NoReturn:
        """The same for options that this command doesn't have, with the closest that it has."""
        near = [closest(one.partition("=")[0], self._option_string_actions, count=1) for one in arguments]
        self.error(f"unrecognized arguments: {' '.join(arguments)}.{''.join(near)}")

    def _print_message(self, message: str, file: Any = None) -> None:
        if message:
            stream = file or sys.stderr
            _write(stream, _told(stream, visible_lines(message)) if ": error: " in message else visible_lines(message))


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Paragraphs as wide as the terminal; what is indented, such as examples, stays as it is."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **{"width": width_of(sys.stdout) - 2, **options})

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n  " in text:
            return super()._fill_text(text, width, indent)
        return argparse.HelpFormatter._fill_text(self, text, width, indent)


@contextmanager
def escaped_logs() -> Iterator[None]:
    """Log messages and warnings pass the door, too; each begins with its level, further lines are indented."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    usual = warnings.formatwarning
    _warned.clear()
    warnings.formatwarning = _warning
    try:
        yield
    finally:
        warnings.formatwarning = usual


_warned: set[str] = set()


def _warning(message: object, *_: Any, **__: Any) -> str:
    _warned.add(str(message))
    return f"{_log_line(f'WARNING: {message}')}\n"


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        _warned.add(record.getMessage())
        return _log_line(super().format(record))


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


def _log_line(text: str) -> str:
    return _encodable(sys.stderr, _told(sys.stderr, _indented(text)))


def _told(stream: IO[str] | None, text: str) -> str:
    """A message, wrapped where there is a terminal or COLUMNS, with its level in colour. In a pipe lines stay whole."""
    if _has_width(stream):
        lines = text.split("\n")
        text = "\n".join(_wrapped(line, width_of(stream), "  " + " " * _indent_of(line)) for line in lines)
    for level, colour in (("error:", RED), ("ERROR:", RED), ("WARNING:", YELLOW)):
        if text.startswith(level):
            return _coloured(stream, level, colour) + text.removeprefix(level)
    return text


def _wrapped(text: str, width: int, indent: str) -> str:
    options: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False, "drop_whitespace": True}
    first = " " * _indent_of(text)
    return textwrap.fill(text.strip(), width, initial_indent=first, subsequent_indent=indent, **options)


def _indent_of(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _first_line_bold(text: str) -> str:
    lines = text.split("\n")
    first = next((index for index, line in enumerate(lines) if line.strip()), 0)
    lines[first] = _coloured(sys.stdout, lines[first], BOLD)
    return "\n".join(lines)


def _coloured(stream: IO[str] | None, text: str, colour: str) -> str:
    """Colours are for people: none in a pipe, none where NO_COLOR (no-color.org) or TERM=dumb asks for none."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not _is_terminal(stream)
    return text if plain else f"\x1b[{colour}m{text}\x1b[0m"


def _is_terminal(stream: IO[str] | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False


def _has_width(stream: IO[str] | None) -> bool:
    return _is_terminal(stream) or os.environ.get("COLUMNS", "").isdecimal()


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
