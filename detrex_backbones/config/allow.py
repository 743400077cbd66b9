"""Which targets may be called: the boundary for configs from strangers."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from detrex_backbones.config.targets import dotted_name, import_module, locate, lookup
from detrex_backbones.errors import ConfigTypeError, InstantiateError

__all__ = ["ACTIVE", "Allowlist", "check_names"]


class Allowlist:
    """Names of targets that may be called.

    An entry that ends with "." allows the public classes below it: every part of the name is public, all but the last
    name a module, and the class was defined below the prefix, too. So `torch.os.mkdir`, which is not torch's, is not
    allowed by "torch.", nor is a function or what hangs on a class. Any other entry allows
    exactly what it names, which may also be a function.

    Args:
        entries: such as `("torch.nn.", "detrex_backbones.make_stage")`.

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

    def objection_to_name(self, name: str) -> str | None:
        """Why the name may not be looked up, which imports its module: "" if no entry covers it, None if it may."""
        if name in self.entries:
            return None
        if not name.startswith(self.prefixes):
            return ""
        private = [part for part in name.split(".") if part.startswith("_")]
        return f"{private[0]} is private, and a prefix allows what is public" if private else None

    def objection_to(self, target: Any) -> str | None:
        """Why the target may not be called: an object, or a name that may be looked up. None if it may."""
        if isinstance(target, str):
            return None if target in self.entries else self._objection_to_class(target)
        names = [name for name in (dotted_name(target), _full_name(target)) if name is not None]
        if any(name in self.entries for name in names):
            return None
        objections = [self.objection_to_name(name) for name in names]
        if None not in objections:
            return objections[0] if objections else "it has no name"
        return self._objection_to_class(names[objections.index(None)])

    def _objection_to_class(self, name: str) -> str | None:
        """Why a prefix that covers the name doesn't allow what is found there."""
        place, _, last = name.rpartition(".")
        module = import_module(place, name) if place else None
        if module is None:
            return f"{place or name} is no module, and a prefix allows what stands in a module"
        found = getattr(module, last, None)
        if found is None:
            locate(name)  # whose error says what there is
        if not inspect.isclass(found):
            kind = "a module" if isinstance(found, ModuleType) else f"of type {type(found).__name__}"
            return f"it is {kind}, and a prefix allows classes alone; a function needs its full name in allow"
        own = f"{found.__module__}.{found.__qualname__}"
        if not own.startswith(self.prefixes) or lookup(own) is not found:
            return f"it is {own}"
        return None


def _full_name(target: Any) -> str | None:
    """Where the object says that it was defined, if it is found there."""
    module, qualname = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
    name = f"{module}.{qualname}"
    return name if isinstance(module, str) and isinstance(qualname, str) and lookup(name) is target else None


ACTIVE: ContextVar[tuple[Allowlist, ...]] = ContextVar("allow", default=())
"""The lists that hold now: those of the `instantiate` calls that this one happens inside."""


def check_names(names: Iterable[str]) -> None:
    """Refuse names that a target wants to look up, where the `instantiate` that called it doesn't allow one of them.

    Raises:
        InstantiateError: with the name, and what is allowed.
    """
    names = list(names)
    for allowed in ACTIVE.get():
        for objection in (allowed.objection_to_name, allowed.objection_to):  # all names before the first import
            for name in names:
                if (reason := objection(name)) is not None:
                    raise InstantiateError(f"{name} is not allowed{reason and ': ' + reason}; allowed: {allowed}.")
