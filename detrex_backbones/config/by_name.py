"""Classes and functions that are values of a config, as a YAML file can hold them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from detrex_backbones.config.allow import ACTIVE, check_names
from detrex_backbones.config.imports import execute
from detrex_backbones.config.nodes import to_plain
from detrex_backbones.config.targets import locate
from detrex_backbones.errors import ConfigImportError, InstantiateError, closest

__all__ = ["OBJECT_NAMED", "object_named"]

OBJECT_NAMED = "detrex_backbones.config.object_named"
"""The `_target_` under which `LazyConfig.save` writes them."""


def object_named(_name_: str, _args_: Any = (), _file_: str = "", **keywords: Any) -> Any:
    """The object of this dotted name; with arguments a `functools.partial` of it.

        norm_layer: {_target_: detrex_backbones.config.object_named, _name_: torch.nn.LayerNorm, eps: 1.0e-06}

    This is how `LazyConfig.save` writes a class, a function, an enum's member or a dtype that is an argument, and what
    a config file defines, which is looked up in that file.

    Args:
        _name_: such as "torch.nn.LayerNorm".
        _args_: positional arguments of the partial.
        _file_: path of the config file that defines it; the file is run.
        **keywords: its keywords.

    Raises:
        ConfigImportError: the name leads nowhere, or the file can't be run.
        InstantiateError: `instantiate` was given `allow`, which doesn't allow it; it allows nothing of a file.
    """
    if _file_ and ACTIVE.get():
        raise InstantiateError(f"{_name_} of the file {_file_} is not allowed; allowed: {ACTIVE.get()[-1]}.")
    check_names([_name_])
    found = _of_file(_file_, _name_) if _file_ else locate(_name_)
    if not _args_ and not keywords:
        return found
    return functools.partial(found, *to_plain(_args_), **{key: to_plain(value) for key, value in keywords.items()})


def _of_file(file: str, name: str) -> Any:
    found: Any = execute(Path(file))
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigImportError(f"The config file {file} defines no {name!r}.{closest(part, vars(found))}")
        found = getattr(found, part)
    return found
