"""How deep the text of a YAML file may nest: its parser takes the square of the depth, and the stack of the process."""

from __future__ import annotations

import re

from detrex_backbones.errors import ConfigValueError

__all__ = ["check_nesting"]

DEPTH = 200
_BRACKETS = re.compile(r"[\[\]{}]")
# Each level of blocks takes at least one of these characters before the first word of a line.
_INDENT = re.compile(rf"^[ \t?:-]{{{4 * DEPTH}}}", re.MULTILINE)


def check_nesting(text: str, path: object) -> None:
    """Refuse a text whose brackets or lines lie deeper in one another than any config's.

    Raises:
        ConfigValueError: it names the file and the limit.
    """
    depth = deepest = 0
    for bracket in _BRACKETS.findall(text):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    if deepest > DEPTH or _INDENT.search(text):
        raise ConfigValueError(f"{path} nests its values too deep; a config has at most {DEPTH} levels.")
