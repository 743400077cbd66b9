"""Which targets may be called: the boundary for configs from strangers."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from detrex_backbones.errors import ConfigTypeError

__all__ = ["Allowlist"]


class Allowlist:
    """Names of targets that may be called.

    An entry that ends with "." allows every name that starts with it, provided that the object found there also was
    defined under an allowed name: `torch.os.system` is not torch's. Any other entry allows exactly that name.

    Args:
        entries: such as `("torch.nn.", "collections.OrderedDict")`.

    Raises:
        ConfigTypeError: the entries are not strings, or are one string.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self.entries = () if isinstance(entries, str) else tuple(entries)
        if isinstance(entries, str) or not all(isinstance(entry, str) and entry for entry in self.entries):
            raise ConfigTypeError(
                f"allow takes a tuple of dotted names and prefixes such as ('torch.nn.',), not {entries!r}."
            )
        self.prefixes = tuple(entry for entry in self.entries if entry.endswith("."))

    def __str__(self) -> str:
        return ", ".join(self.entries) or "nothing"

    def allows_name(self, name: str) -> bool:
        """Whether the name may be looked up at all, which imports its module."""
        return name in self.entries or name.startswith(self.prefixes)

    def allows(self, target: Any, name: str | None) -> bool:
        """Whether the object may be called that was found under `name`, or stood in the config itself (None)."""
        if name is not None and not self.allows_name(name):
            return False
        return (name is not None and name in self.entries) or self.allows_name(own_name(target))


def own_name(target: Any) -> str:
    """Where the target was defined, whatever it was found as; of an object without a name, where its type was."""
    while isinstance(target, functools.partial):
        target = target.func
    module, qualname = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
    if isinstance(module, str) and isinstance(qualname, str):
        return f"{module}.{qualname}"
    return f"{type(target).__module__}.{type(target).__qualname__}"
