"""Names of a file as the user wants them to be read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from detrex_backbones.checkpoint.files import Checkpoint
from detrex_backbones.errors import ArgumentError, closest
from detrex_backbones.text import shorten

__all__ = ["rename_checkpoint", "rename_keys"]


def rename_keys(keys: Iterable[str], pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """What each name becomes.

    Args:
        keys: the names in a file.
        pairs: applied in their order: a name that is there by then, or else a regular expression as of `re.sub`, and
            what it becomes.

    Returns:
        Name in the file -> the new one.

    Raises:
        ArgumentError: a pair that changes nothing or that `re` can't read; two names that become one.
    """
    found = {key: key for key in keys}
    for old, new in pairs:
        if old in found.values():
            changed = {key: new if name == old else name for key, name in found.items()}
        else:
            changed = _substituted(found, old, new)
        if changed == found:
            raise ArgumentError(
                f"rename: {old!r} changes no name of the file, neither as a name nor as a regular expression. "
                f"It has: {shorten(found.values())}.{closest(old, list(found.values()))}"
            )
        found = changed
    first: dict[str, str] = {}
    for key, name in found.items():
        if first.setdefault(name, key) != key or not name:
            raise ArgumentError(
                f"rename: {key!r} becomes {name!r}, as {first[name]!r} does. Each tensor needs a name of its own."
                if name
                else f"rename: {key!r} would have no name at all. To leave a tensor out, name it in allow_unused."
            )
    return found


def _substituted(found: dict[str, str], pattern: str, replacement: str) -> dict[str, str]:
    try:
        compiled = re.compile(pattern)
        return {key: compiled.sub(replacement, name) for key, name in found.items()}
    except (re.error, IndexError) as error:
        raise ArgumentError(
            f"rename: {pattern!r} -> {replacement!r} is no regular expression with its replacement: {error}. A dot of "
            f"a name is '\\.' there, and a group of it '\\1'."
        ) from error


def _moved_modules(names: dict[str, str]) -> dict[str, str]:
    """What becomes of the paths of modules whose tensors keep their own names: their versions go with them."""
    moved = {}
    for old, new in names.items():
        while old != new and old.rpartition(".")[2] == new.rpartition(".")[2]:
            old, new = old.rpartition(".")[0], new.rpartition(".")[0]
            moved[old] = new
    return moved


def rename_checkpoint(checkpoint: Checkpoint, pairs: Sequence[tuple[str, str]]) -> tuple[Checkpoint, dict[str, str]]:
    """A checkpoint with other names, and new name -> name in the file. See `rename_keys`."""
    names = rename_keys([*checkpoint.tensors, *checkpoint.special, *checkpoint.states], pairs)
    moved = _moved_modules(names)
    renamed = replace(
        checkpoint,
        metadata={moved.get(path, path): versions for path, versions in checkpoint.metadata.items()},
        tensors={names[key]: tensor for key, tensor in checkpoint.tensors.items()},
        special={names[key]: tensor for key, tensor in checkpoint.special.items()},
        states={names[key]: state for key, state in checkpoint.states.items()},
    )
    return renamed, {new: old for old, new in names.items()}
