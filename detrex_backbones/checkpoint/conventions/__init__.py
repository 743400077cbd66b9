"""How each source names its tensors: one small table of rules a file.

A module of this folder that holds a `CONVENTION` is a source. To add one, add a file; nothing else changes.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from detrex_backbones.checkpoint.conventions._convention import Convention, Rule

__all__ = ["Convention", "Rule", "conventions"]


@cache
def conventions() -> dict[str, Convention]:
    """Every known convention by its name."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            convention = importlib.import_module(f"{__name__}.{module.name}").CONVENTION
            found[convention.name] = convention
    return found
