"""Where an error that is none of ours comes from, if it is the user's own code or config."""

from __future__ import annotations

import re
import site
import sysconfig
import traceback
from pathlib import Path

import detrex_backbones
from detrex_backbones.config.nodes import made_at

__all__ = ["explain"]

MISSING_KEY = re.compile(r"Interpolation key '(.+)' not found")


def explain(error: Exception) -> list[str]:
    """The lines that say where the user's code or config is wrong; [] where it isn't: then it is a bug of ours.

    Args:
        error: that reached the command line.
    """
    notes = [str(note) for note in getattr(error, "__notes__", [])]
    if any(note.startswith("instantiate:") for note in notes) and not MISSING_KEY.match(str(error)):
        return notes
    if type(error).__module__.startswith("omegaconf"):
        key, place = getattr(error, "full_key", ""), _place_of(error)
        return [" ".join(filter(None, (key and f"at {key}", "in the config", place and f"written at {place}")))]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    return [f"at {frames[-1].filename}:{frames[-1].lineno}, in {frames[-1].name}: {frames[-1].line}"] if frames else []


def _place_of(error: Exception) -> str:
    """The file and line of the value that omegaconf can't read, as far as they are known; "" for none."""
    node = getattr(error, "parent_node", None)
    while node is not None and made_at(node) is None:
        node = node._get_parent()
    place = (made_at(node) if node is not None else "") or ""
    missing = MISSING_KEY.match(str(error))
    if not place or missing is None:
        return place
    file, _, first = place.rpartition(":")
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()[int(first) - 1 :]
    except (OSError, UnicodeDecodeError):  # of a prompt, or gone since
        return place
    wanted = f"${{{missing[1]}}}"
    # One that doesn't stand there came by an override.
    return next((f"{file}:{number}" for number, line in enumerate(lines, int(first)) if wanted in line), "")


def _is_users(file: str) -> bool:
    """Whether a file is neither of this library, nor of Python, nor installed."""
    if file.startswith("<"):  # of the import system
        return False
    folders = [str(Path(detrex_backbones.__file__).parent), sysconfig.get_path("stdlib"), *site.getsitepackages()]
    installed = ("site-packages", "dist-packages")
    return not any(file.startswith(f"{folder}/") for folder in folders) and not any(
        name in Path(file).parts for name in installed
    )
