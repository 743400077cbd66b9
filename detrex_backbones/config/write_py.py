"""A config as a Python file that loads: imports, then one assignment for each key."""

from __future__ import annotations

import functools
import math
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from detrex_backbones.atomic_write import write_whole
from detrex_backbones.config.lambda_text import lambda_text, with_names
from detrex_backbones.config.lazy_config import LazyConfig
from detrex_backbones.config.nodes import SEQUENCES, is_call, is_tuple
from detrex_backbones.config.targets import dotted_name, is_dotted_name
from detrex_backbones.errors import ConfigError, ConfigTypeError, ConfigValueError
from detrex_backbones.remote import AnyPath
from detrex_backbones.text import visible

__all__ = ["python_file", "write_py"]

LAZY_CALL = "from detrex_backbones.config import LazyCall as L"
WIDTH = 100  # of a line that is kept whole


def python_file(cfg: DictConfig) -> str:
    """The text of the file that `write_py` writes; it isn't looked whether it loads."""
    return _Writer().file(cfg)


def write_py(cfg: Any, path: AnyPath) -> None:
    """Write a config as a `.py` file that `LazyConfig.load` reads as the same config.

    Args:
        cfg: a DictConfig whose keys are names.
        path: the file; it appears whole or not at all.

    Raises:
        ConfigTypeError: something that is no config, or keys that are no names.
        ConfigValueError: a value that no Python text makes, such as an object or a function of a config file; a file
            that can't be written.
    """
    if not isinstance(cfg, DictConfig) or not all(isinstance(key, str) and key.isidentifier() for key in cfg):
        raise ConfigTypeError("a config that is written as Python has names for keys.")
    text = python_file(cfg)
    _check(cfg, text)
    try:
        write_whole(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise ConfigValueError(f"{visible(path)} can't be written: {visible(error.strerror or error)}.") from error


def _check(cfg: DictConfig, text: str) -> None:
    """Load it from another place first: what is at the path now stays until it is right."""
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "config.py"
        probe.write_text(text, encoding="utf-8")
        try:
            again = LazyConfig.to_yaml(LazyConfig.load(probe))
        except (ConfigError, OmegaConfBaseException) as error:
            raise ConfigValueError(f"the config can't be written as Python that loads: {error}") from error
    if again != LazyConfig.to_yaml(cfg):
        raise ConfigValueError(
            "the config can't be written as Python that loads as the same config. Write it as .yaml."
        )


class _Writer:
    """Collects the imports while it writes."""

    def __init__(self) -> None:
        self.imports: dict[str, str] = {}  # name -> the module that it is imported from

    def file(self, cfg: DictConfig) -> str:
        assignments = [f"{key!s} = {self.value(_item(cfg, key), str(key), 0)}" for key in cfg]
        modules: dict[str, list[str]] = defaultdict(list)
        for name, module in sorted(self.imports.items()):
            modules[module].append(name)
        imports = [f"from {module} import {', '.join(modules[module])}" for module in sorted(modules)]
        has_calls = any("L(" in line for line in assignments)
        return "\n".join([*imports, *([LAZY_CALL] if has_calls else []), "", *assignments, ""])

    def value(self, value: Any, path: str, indent: int) -> str:
        sequences: tuple[Any, ...] = (*SEQUENCES, list, tuple)
        if (text := lambda_text(value)) is not None:
            return with_names(text, lambda name: self.name(name, value, path))
        if isinstance(value, Mapping):
            return self.mapping(value, path, indent)
        if isinstance(value, sequences):
            items = [self.value(_item(value, index), f"{path}[{index}]", indent + 4) for index in range(len(value))]
            opening, closing = "()" if is_tuple(value) else "[]"
            comma = "," if is_tuple(value) and len(items) == 1 else ""
            return f"{opening}{', '.join(items)}{comma}{closing}"
        if isinstance(value, float) and not math.isfinite(value):
            return f"float({str(value)!r})"
        if value is None or isinstance(value, bool | int | float | str | bytes):
            return repr(value)
        if isinstance(value, functools.partial) and not value.args:
            arguments = [f"{key}={self.value(item, f'{path}.{key}', indent)}" for key, item in value.keywords.items()]
            partial = self.name("functools.partial", value, path)
            return f"{partial}({', '.join([self.target(value.func, path), *arguments])})"
        return self.name(dotted_name(value), value, path)

    def mapping(self, node: Mapping[Any, Any], path: str, indent: int) -> str:
        keys = [key for key in node if key != "_target_" or not is_call(node)]
        if not all(isinstance(key, str) and key.isidentifier() for key in keys):
            items = [f"{key!r}: {self.value(_item(node, key), f'{path}.{key}', indent + 4)}" for key in keys]
            return f"{{{', '.join(items)}}}"
        items = [f"{key}={self.value(_item(node, key), f'{path}.{key}', indent + 4)}" for key in keys]
        head = f"L({self.target(node['_target_'], path)})" if is_call(node) else "dict"
        line = f"{head}({', '.join(items)})"
        if len(line) + indent <= WIDTH and "\n" not in line:
            return line
        inner = " " * (indent + 4)
        return f"{head}(\n" + "".join(f"{inner}{item},\n" for item in items) + " " * indent + ")"

    def target(self, target: Any, path: str) -> str:
        name = target if isinstance(target, str) and is_dotted_name(target) else dotted_name(target)
        return self.name(name, target, path)

    def name(self, dotted: str | None, value: Any, path: str) -> str:
        module, _, name = (dotted or "").rpartition(".")
        if not module or self.imports.setdefault(name, module) != module or "defined_in_a_config_file" in module:
            raise ConfigValueError(
                f"{path} is {visible(repr(value), 80)}, which no import gives under a name of its own. Write the "
                f"config as .yaml, or move it into a module."
            )
        return name


def _item(node: Any, key: Any) -> Any:
    """A value as it is written: an interpolation as its text, what is missing as "???"."""
    if OmegaConf.is_config(node):
        if OmegaConf.is_missing(node, key):
            return "???"
        if OmegaConf.is_interpolation(node, key):
            return OmegaConf.to_container(node, resolve=False)[key]  # type: ignore[index]
    return node[key]
