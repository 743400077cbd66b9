"""Globs of keys: what one allows, and the fewest that allow some keys and no others."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase, translate

__all__ = ["fewest_globs", "is_allowed"]

MOST = 8  # globs that a message can propose


def is_allowed(key: str, globs: Iterable[str], scope: str = "") -> bool:
    """Whether a glob matches a key, with or without the scope before it."""
    relative = key[len(scope) + 1 :] if scope else key
    return any(fnmatchcase(name, glob) for glob in globs for name in (key, relative))


def fewest_globs(keys: Sequence[str], others: Iterable[str], scope: str = "") -> list[str]:
    """The globs to allow these keys and none of the others by; [] where that takes more than a message can hold.

    A module of which all keys are wanted is one glob, and so is what differs only by the numbers of blocks.

    Args:
        keys: to be allowed.
        others: not to be allowed.
        scope: as of `is_allowed`.
    """
    others, rest, found = list(others), list(keys), list[str]()
    heads = {other[:cut] for other in others for cut in _dots(other)}
    while rest and len(found) < MOST:
        glob = _glob_of(rest, others, heads, scope)
        left = [key for key in rest if not fnmatchcase(key, glob)]
        found.append(glob)
        rest = left
    return [] if rest else found


def _glob_of(rest: list[str], others: list[str], heads: set[str], scope: str) -> str:
    """The widest glob that allows the first of the keys and nothing else."""
    key = rest[0]
    if len(rest) > 1:
        module = next((key[:cut] for cut in _dots(key) if key[:cut] not in heads), "")
        if module and sum(other.startswith(f"{module}.") for other in rest) > 1:
            return f"{_escaped(module)}.*"
        numbers = re.sub(r"(?<=\.)\d+(?=\.)|(?<=[a-z_])\d+(?=\.)", "*", _escaped(key))
        matches: Callable[[str], object] = re.compile(translate(numbers)).match
        alike = sum(matches(other) is not None for other in rest)
        if alike > 1 and not any(matches(name) for other in others for name in _both(other, scope)):
            return numbers
    return _escaped(key)


def _both(key: str, scope: str) -> tuple[str, ...]:
    return (key, key[len(scope) + 1 :]) if scope and key.startswith(f"{scope}.") else (key,)


def _dots(key: str) -> list[int]:
    return [at for at, letter in enumerate(key) if letter == "."]


def _escaped(text: str) -> str:
    return re.sub(r"([\[*?])", r"[\1]", text)
