"""A naming convention of the user's own, from wherever a config or the command line names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from detrex_backbones.checkpoint.names.conventions import Convention
from detrex_backbones.config import LazyConfig, instantiate
from detrex_backbones.errors import ArgumentError

__all__ = ["find_convention", "find_option"]

OWN = "CONVENTION"


def find_convention(source: Any) -> Any:
    """What `source=` stands for.

    Args:
        source: the name of a convention, a `Convention`, a node that makes one, or a path to a Python file with a
            `CONVENTION` in it. The file is run, as a config file is.

    Returns:
        The `Convention` of a node or file; anything else as it is.

    Raises:
        ConfigError: the file can't be run, or has no `CONVENTION`.
        ArgumentError: what stands there is no `Convention`.
    """
    if isinstance(source, DictConfig):
        found = instantiate(source)
    elif isinstance(source, str) and source.endswith(".py"):
        found = LazyConfig.load(Path(source), OWN)
    else:
        return source
    if not isinstance(found, Convention):
        raise ArgumentError(
            f"source={source!r}: expected a detrex_backbones.checkpoint.Convention, "
            f"{OWN} = Convention(...) in a file; it is a {type(found).__name__}."
        )
    return found


def find_option(name: str, value: Any) -> Any:
    """An option of a load as a config has it -> as `load_checkpoint` takes it."""
    if name == "source":
        return find_convention(value)
    return OmegaConf.to_container(value, resolve=True) if isinstance(value, DictConfig | ListConfig) else value
