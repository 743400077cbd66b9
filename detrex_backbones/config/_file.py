"""The module that functions and classes defined in a config file say they come from (their `__module__`).

Config files are executed afresh each time and are in no `sys.modules`; but dataclasses, pickle and cloudpickle look
a `__module__` up there. They find this module, which is empty: pickle refuses, and cloudpickle pickles by value.
"""

from __future__ import annotations

__all__: list[str] = []
