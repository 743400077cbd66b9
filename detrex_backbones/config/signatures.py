"""Which arguments a target takes, and which of them somebody probably meant."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from typing import Any

from detrex_backbones.config.targets import describe
from detrex_backbones.errors import closest

__all__ = ["named_parameters", "parameters", "unknown_argument"]

_cache: weakref.WeakKeyDictionary[Any, tuple[str, ...] | None] = weakref.WeakKeyDictionary()


def parameters(target: Callable[..., Any]) -> tuple[str, ...] | None:
    """The keywords that `target` takes, or None where it takes any or can't say (some builtins)."""
    if not inspect.isroutine(target) and not inspect.isclass(target):
        return _read(target)
    try:
        if target not in _cache:
            _cache[target] = _read(target)
        return _cache[target]
    except TypeError:  # no weak references to builtins
        return _read(target)


def _read(target: Callable[..., Any]) -> tuple[str, ...] | None:
    try:
        found = inspect.signature(target).parameters.values()
    except Exception:  # signatures can be written by hand, as anything; without one there is nothing to check
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in found):
        return None
    return tuple(p.name for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))


def named_parameters(target: Callable[..., Any]) -> dict[str, Any]:
    """The keywords that `target` names, whatever else it takes, with their defaults; none where it can't say."""
    try:
        found = inspect.signature(target).parameters.values()
    except Exception:  # as in `_read`
        return {}
    return {p.name: p.default for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def unknown_argument(target: Any, name: object) -> str | None:
    """What is wrong with giving `target` an argument of that name: a sentence, or None if nothing."""
    allowed = parameters(target) if callable(target) else None
    if allowed is None or name in allowed:
        return None
    listed = ", ".join(allowed) if allowed else "nothing by name"
    return f"{describe(target)} takes no argument {name!r}.{closest(name, allowed)} It takes: {listed}."
