"""What a pattern means wherever names are listed."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable

__all__ = ["matcher"]


def matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a name matches.

    Args:
        pattern: a part of the name, or a glob of all of it if one of `*?[` is in it; "" for all names.
    """
    glob = pattern if any(character in pattern for character in "*?[") else f"*{pattern}*"
    return lambda name: fnmatch.fnmatchcase(name, glob)
