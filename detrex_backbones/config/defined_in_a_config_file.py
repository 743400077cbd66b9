"""The module that functions and classes defined in a config file say they come from (their `__module__`).

Config files are executed afresh each time and are in no `sys.modules`; but dataclasses, pickle and cloudpickle look
a `__module__` up there. They find this module, which is empty: pickle refuses, and its message ends with this module's
name; cloudpickle pickles by value.
"""

from __future__ import annotations

from typing import NoReturn

__all__: list[str] = []


def __getattr__(name: str) -> NoReturn:
    raise AttributeError(
        f"{name} is defined in a config file, which is run afresh each time and can't be imported: neither pickle nor "
        "another process finds it. Move it to a module and import it by an absolute import; cloudpickle takes it as is."
    )
