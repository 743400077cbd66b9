"""From a dotted name to the object it names, and back to the shortest name."""

from __future__ import annotations

import builtins
import enum
import importlib
import inspect
import sys
import unicodedata
from types import ModuleType
from typing import Any

from detrex_backbones.errors import ConfigImportError, closest

__all__ = ["describe", "dotted_name", "import_module", "is_dotted_name", "locate", "lookup"]


def is_dotted_name(text: str) -> bool:
    """Whether the text is words of Python with dots between them, and so means the same as a part of a program."""
    words = text.split(".")
    return all(word.isidentifier() and unicodedata.is_normalized("NFKC", word) for word in words)


def locate(name: str) -> Any:
    """The object that a dotted name stands for, importing what it takes: `torch.nn.Conv2d`, `pkg.Class.method`.

    Raises:
        ConfigImportError: no such module or attribute, or a module on the way fails to import.
    """
    if not is_dotted_name(name):
        raise ConfigImportError(f"{name!r:.200} is not a dotted name such as 'package.module.Class'.")
    parts = name.split(".")
    found = import_module(parts[0], name)
    if found is None:
        if hasattr(builtins, parts[0]):
            found = builtins
            parts.insert(0, "builtins")
        else:
            raise ConfigImportError(f"Can't locate {name!r}: there is no module {parts[0]!r}.")
    for end, part in enumerate(parts[1:], start=2):
        found = _step(found, parts[: end - 1], part, name)
    return found


def _step(found: Any, before: list[str], part: str, name: str) -> Any:
    """The attribute or submodule `part` of what the parts before it named."""
    missing = object()
    inner = getattr(found, part, missing)
    if inner is missing:
        # A submodule that isn't imported yet, or whose parent module is hidden behind an attribute of the same name.
        inner = import_module(".".join([*before, part]), name)
    if inner is None and getattr(found, part, missing) is missing:
        shadowed = sys.modules.get(".".join(before))
        inner = getattr(shadowed, part, missing)
        if inner is missing:
            near = closest(part, [option for option in dir(found) if not option.startswith("_")])
            raise ConfigImportError(f"Can't locate {name!r}: {'.'.join(before)} has no {part!r}.{near}")
    return inner


def import_module(module: str, name: str) -> ModuleType | None:
    """The module that the target `name` needs, imported if need be; None if there is none of that name."""
    if module in sys.modules:
        return sys.modules[module]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(error.name + ".")):
            return None
        raise ConfigImportError(f"Can't locate {name!r}: importing {module} raised {error!r}.") from error
    except ConfigImportError as error:
        raise ConfigImportError(f"Can't locate {name!r}: {error}") from error
    except Exception as error:
        raise ConfigImportError(f"Can't locate {name!r}: importing {module} raised {error!r}.") from error


def lookup(name: str) -> Any:
    """As `locate`, but only among what is imported already; None if it isn't there."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        found: Any = sys.modules.get(".".join(parts[:end]))
        if found is not None:
            for part in parts[end:]:
                found = getattr(found, part, None)
            return found
    return None


def dotted_name(target: Any) -> str | None:
    """The shortest dotted name that resolves to this very object, or None if it has none.

    `torch.nn.modules.conv.Conv2d` is also `torch.nn.Conv2d`, which outlives a move of the implementation. A member of
    an enum and torch's constants, such as `torch.float16`, have names, too.
    """
    if isinstance(target, enum.Enum):
        name = f"{dotted_name(type(target))}.{target.name}"
        return name if lookup(name) is target else None
    if type(target).__module__ == "torch" and type(target).__name__ in ("dtype", "layout", "memory_format"):
        return repr(target)
    module, qualname = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str) or "<" in qualname:
        return None
    packages = module.split(".")
    for end in range(1, len(packages) + 1):
        name = ".".join([*packages[:end], qualname])
        found = lookup(name)
        # A bound method is made anew each time it is looked up.
        if found is target or (inspect.ismethod(target) and found == target):
            return name
    return None


def describe(target: Any) -> str:
    """A readable name of a target, for messages."""
    if isinstance(target, str):
        return target
    name = dotted_name(target)
    if name is not None:
        return name
    module, qualname = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
    if isinstance(module, str) and isinstance(qualname, str):
        return f"{module}.{qualname}"
    return repr(target)[:80]
