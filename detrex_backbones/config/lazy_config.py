"""LazyConfig: load, change, save and print whole configs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from omegaconf import DictConfig, ListConfig

from detrex_backbones.config.imports import execute
from detrex_backbones.config.nodes import ALLOW_OBJECTS, adopt, as_config, clone, set_made_at
from detrex_backbones.config.overrides import apply_overrides
from detrex_backbones.config.read_yaml import read_yaml
from detrex_backbones.config.remote_file import fetch_config
from detrex_backbones.config.save import save, to_yaml
from detrex_backbones.config.to_py import to_py
from detrex_backbones.errors import ConfigKeyError, ConfigValueError, closest
from detrex_backbones.remote import as_path, is_remote
from detrex_backbones.text import visible

__all__ = ["LazyConfig"]

StrPath = str | os.PathLike[str]
Keys = str | Iterable[str] | None
ConfigT = TypeVar("ConfigT")


class LazyConfig:
    """Load, change, save and print configs made of lazy calls; the behaviour is detectron2's `LazyConfig`."""

    @staticmethod
    def load(path: StrPath, keys: Keys = None) -> Any:
        """Load a config file.

        A `.py` file is executed afresh, with relative imports that go by file location and need no `__init__.py`; a
        `.yaml` or `.yml` file is read with the safe loader.

        Args:
            path: the file, absolute or from the current folder, or of remote storage (s3://, gs://, hf://). A `.py`
                file from there is run like any other, and imports nothing relatively.
            keys: one key, or a tuple of keys.

        Returns:
            Without keys, a DictConfig: of a `.py` file all its DictConfigs, ListConfigs and dicts whose names don't
            start with "_". With one key its value, with several a tuple of their values; a dict comes as DictConfig.

        Raises:
            ConfigValueError: the file is none of these kinds, or its YAML doesn't hold plain data.
            ConfigImportError: the file is missing, isn't Python or YAML, raises, or imports itself.
            ConfigKeyError: it doesn't have one of the keys.
        """
        return _load(fetch_config(path) if is_remote(path) else Path(path), keys)

    @staticmethod
    def load_rel(path: StrPath, keys: Keys = None) -> Any:
        """`load`, with the path taken from the folder of the file that calls this.

        Args:
            path: the file, from the folder of the caller's.
            keys: as of `load`.

        Returns:
            As `load`.

        Raises:
            ConfigValueError: the caller is in no file, such as a prompt; otherwise as `load`.
        """
        caller = sys._getframe(1).f_code.co_filename
        if caller.startswith("<"):
            raise ConfigValueError(f"load_rel({str(path)!r}) is called from {caller}, which is no file. Use load.")
        return _load(Path(caller).parent / path, keys)

    @staticmethod
    def save(cfg: Any, path: StrPath) -> None:
        """Write a config to a YAML file, which appears whole or not at all; see `detrex_backbones.config.save.save`.

        Args:
            cfg: a DictConfig, ListConfig, dict or list.
            path: the file, here or on remote storage; its folder must exist.

        Raises:
            ConfigTypeError: `cfg` is none of these.
            ConfigValueError: the config can't be loaded again, or the file can't be written.
        """
        save(cfg, as_path(path))

    @staticmethod
    def to_yaml(cfg: Any) -> str:
        """The text that `save` would write, interpolations resolved; what YAML can't hold stands there to be read.

        Args:
            cfg: a config or any part of one.
        """
        return to_yaml(cfg)

    @staticmethod
    def apply_overrides(cfg: ConfigT, overrides: Iterable[str]) -> ConfigT:
        """Change a config in place by texts such as `model.depth=101`. If one of them is wrong, none is applied.

        Args:
            cfg: a DictConfig or ListConfig.
            overrides: the texts, applied in order; see `detrex_backbones.config.overrides.apply_overrides`.

        Returns:
            The config that was given.

        Raises:
            OverrideError: an override that can't be read, or doesn't fit the config; it names what would.
            ConfigTypeError: `cfg` is no config, or `overrides` is a single string.
        """
        return apply_overrides(cfg, overrides)

    @staticmethod
    def to_py(cfg: Any, prefix: str = "cfg.") -> str:
        """The config as Python-like text to read; see `detrex_backbones.config.to_py.to_py`.

        Args:
            cfg: a config or any part of one.
            prefix: what the keys are put behind.
        """
        return to_py(cfg, prefix)


def _load(path: Path, keys: Keys) -> Any:
    if path.suffix == ".py":
        module = execute(path)
        if keys is not None:
            return _pick(vars(module), keys, path, _offered(module))
        cfg = _public(module)
    elif path.suffix in (".yaml", ".yml"):
        cfg = read_yaml(path)
        if keys is not None:
            return _pick(cfg, keys, path, list(cfg) if isinstance(cfg, DictConfig) else [])
    else:
        raise ConfigValueError(f"A config file ends in .py, .yaml or .yml; {path} doesn't.")
    set_made_at(cfg, f"{path}:1")  # what no call made is looked for there when it is wrong
    return cfg


def _public(module: ModuleType) -> DictConfig:
    public = DictConfig({}, flags=dict(ALLOW_OBJECTS))
    for name, value in vars(module).items():
        if isinstance(value, (DictConfig, ListConfig, dict)) and not name.startswith("_"):
            adopt(public, name, as_config(value) if isinstance(value, dict) else clone(value))
    return public


def _offered(module: ModuleType) -> list[str]:
    """The names in a config file that somebody may want: neither private nor imported code."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not callable(value) and not isinstance(value, ModuleType)
    ]


def _pick(values: Any, keys: str | Iterable[str], path: Path, offered: list[Any]) -> Any:
    def one(key: str) -> Any:
        if isinstance(values, ListConfig) or key not in values:
            names = ", ".join(map(visible, offered)) or "none"
            raise ConfigKeyError(f"{path} has no key {key!r}.{closest(key, offered)} It has: {names}.")
        return as_config(values[key])

    return one(keys) if isinstance(keys, str) else tuple(one(key) for key in keys)
