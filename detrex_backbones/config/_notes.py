"""What errors of the config layer say: notes on exceptions, also on Python 3.10, and values in few words."""

from __future__ import annotations

import reprlib
from typing import Any

__all__ = ["add_note", "short_repr"]


def add_note(error: BaseException, note: str) -> None:
    """What `error.add_note(note)` does from Python 3.11 on; 3.10 keeps the note but doesn't print it."""
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, list):
        notes.append(note)
    else:
        error.__notes__ = [note]  # type: ignore[attr-defined]


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 60
        self.maxlevel = 2

    def repr_instance(self, value: Any, level: int) -> str:
        text = super().repr_instance(value, level)
        return f"<{type(value).__name__}>" if "\n" in text else text  # a module prints all of its children


def short_repr(value: Any) -> str:
    """A short repr, one that never raises."""
    return _Short().repr(value)
