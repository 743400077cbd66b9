"""Where an error that is none of ours comes from, if it is the user's own code or config."""

from __future__ import annotations

import site
import sysconfig
import traceback
from pathlib import Path

import detrex_backbones

__all__ = ["explain"]


def explain(error: Exception) -> list[str]:
    """The lines that say where the user's code or config is wrong; [] where it isn't: then it is a bug of ours.

    Args:
        error: that reached the command line.
    """
    notes = [str(note) for note in getattr(error, "__notes__", [])]
    if any(note.startswith("instantiate:") for note in notes):
        return notes
    if type(error).__module__.startswith("omegaconf"):
        key = getattr(error, "full_key", "")
        return [f"at {key} in the config"] if key else ["in the config"]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    return [f"at {frames[-1].filename}:{frames[-1].lineno}, in {frames[-1].name}: {frames[-1].line}"] if frames else []


def _is_users(file: str) -> bool:
    """Whether a file is neither of this library, nor of Python, nor installed."""
    if file.startswith("<"):  # of the import system
        return False
    folders = [str(Path(detrex_backbones.__file__).parent), sysconfig.get_path("stdlib"), *site.getsitepackages()]
    installed = ("site-packages", "dist-packages")
    return not any(file.startswith(f"{folder}/") for folder in folders) and not any(
        name in Path(file).parts for name in installed
    )
