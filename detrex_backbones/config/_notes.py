"""Notes on exceptions, also on Python 3.10."""

from __future__ import annotations

__all__ = ["add_note"]


def add_note(error: BaseException, note: str) -> None:
    """What `error.add_note(note)` does from Python 3.11 on; 3.10 keeps the note but doesn't print it."""
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, list):
        notes.append(note)
    else:
        error.__notes__ = [note]  # type: ignore[attr-defined]
