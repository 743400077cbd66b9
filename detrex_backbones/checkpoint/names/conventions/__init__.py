"""How each source names its tensors: one small table a file.

A module of this folder that holds a `CONVENTION`, or several in `CONVENTIONS`, is a source. To add one, add a file;
nothing else changes.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair

__all__ = ["Convention", "Pair", "conventions", "sources"]


@cache
def conventions() -> dict[str, Convention]:
    """Every known convention by its name."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            content = vars(importlib.import_module(f"{__name__}.{module.name}"))
            for convention in content.get("CONVENTIONS", ()) or (content["CONVENTION"],):
                found[convention.name] = convention
    return found


@cache
def sources() -> dict[str, list[str]]:
    """Every name that `source=` takes -> the names of the conventions that it stands for."""
    found: dict[str, list[str]] = {name: [name] for name in conventions()}
    for convention in conventions().values():
        for alias in convention.aliases:
            found.setdefault(alias, []).append(convention.name)
    return found
