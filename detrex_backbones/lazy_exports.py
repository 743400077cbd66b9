"""The front door of a package: its public names, each imported when it is first asked for (PEP 562)."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["lazy_exports"]

NAME = re.compile(r"^from (\S+) import (\w+) as \2$", re.MULTILINE)


def lazy_exports(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package, from the stub beside its `__init__.py`.

    The stub, `__init__.pyi`, is the one list of the names: type checkers and editors read it as well. Each of its lines
    is `from module import Name as Name`.

    Args:
        package: the package's `__name__`.
    """
    stub = (pkgutil.get_data(package, "__init__.pyi") or b"").decode()
    modules = {name: module for module, name in NAME.findall(stub)}

    def get_attribute(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}. Public names: {', '.join(modules)}.")
        value = getattr(importlib.import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)  # found without this function from now on
        return value

    def list_attributes() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get_attribute, list_attributes, sorted(modules)
