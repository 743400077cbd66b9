"""What a naming convention is: how to recognise it, how its names become ours, what of it is no part of a backbone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Convention", "Rule"]


class Rule(NamedTuple):
    """Rewrites a part of a name.

    Args:
        pattern: regular expression, searched in the name.
        replacement: what to put in its place.
        rank: only for tensors with so many dimensions; None for all.
    """

    pattern: str
    replacement: str
    rank: int | None = None


@dataclass(frozen=True)
class Convention:
    """How one source names its tensors. Names are relative to the prefix of the network in the file.

    Args:
        name: of the source.
        anchors: names that every network of this source has; where all of them stand behind one prefix, it is there.
        rules: from its names to this library's, applied in this order.
        left_out: pattern of names that are no part of a backbone -> what they are.
        stage: pattern of the name of a stage within a tensor's name. A stage is loaded whole or not at all: what the
            model's has no place for shows that the file is of another architecture.
    """

    name: str
    anchors: tuple[str, ...]
    rules: tuple[Rule, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    stage: str = r"(?!)"

    def prefixes(self, keys: Iterable[str]) -> list[str]:
        """The prefixes ("" or ending with a dot) behind which a network of this source stands among `keys`."""
        keys = keys if isinstance(keys, set | dict) else set(keys)
        first, *others = self.anchors
        ending = "." + first
        found = [key[: -len(first)] for key in keys if key == first or key.endswith(ending)]
        return sorted(prefix for prefix in found if all(prefix + anchor in keys for anchor in others))

    def rename(self, key: str, rank: int) -> str:
        """This library's name for `key`, a tensor of `rank` dimensions."""
        for pattern, replacement, wanted in self.rules:
            if wanted is None or wanted == rank:
                key = re.sub(pattern, replacement, key)
        return key

    def stage_of(self, key: str) -> str:
        """The part of `key` up to the name of its stage; "" for what is in none."""
        found = re.search(self.stage, key)
        return key[: found.end()] if found else ""

    def why_left_out(self, key: str) -> str:
        """What `key` is when it is no part of a backbone; "" when it is one."""
        return next((why for pattern, why in self.left_out.items() if re.search(pattern, key)), "")
