"""Classes and functions that are values of a config, as a YAML file can hold them."""

from __future__ import annotations

import functools
from typing import Any

from detrex_backbones.config.allow import ACTIVE
from detrex_backbones.config.nodes import to_plain
from detrex_backbones.config.targets import locate
from detrex_backbones.errors import InstantiateError

__all__ = ["OBJECT_NAMED", "object_named"]

OBJECT_NAMED = "detrex_backbones.config.object_named"
"""The `_target_` under which `LazyConfig.save` writes them."""


def object_named(_name_: str, _args_: Any = (), **keywords: Any) -> Any:
    """The object of this dotted name; with arguments a `functools.partial` of it.

        norm_layer: {_target_: detrex_backbones.config.object_named, _name_: torch.nn.LayerNorm, eps: 1.0e-06}

    This is how `LazyConfig.save` writes a class, a function, an enum's member or a dtype that is an argument.

    Args:
        _name_: such as "torch.nn.LayerNorm".
        _args_: positional arguments of the partial.
        **keywords: its keywords.

    Raises:
        ConfigImportError: the name leads nowhere.
        InstantiateError: `instantiate` was given `allow`, which doesn't allow it.
    """
    for allowed in ACTIVE.get():
        for objection in (allowed.objection_to_name, allowed.objection_to):
            if (reason := objection(_name_)) is not None:
                raise InstantiateError(f"{_name_} is not allowed{reason and ': ' + reason}; allowed: {allowed}.")
    found = locate(_name_)
    if not _args_ and not keywords:
        return found
    return functools.partial(found, *to_plain(_args_), **{key: to_plain(value) for key, value in keywords.items()})
