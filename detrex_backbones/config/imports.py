"""How a config file is executed, and how its relative imports find the files beside it."""

from __future__ import annotations

import builtins
import contextvars
import sys
import traceback
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from detrex_backbones.config import _file
from detrex_backbones.config._notes import add_note
from detrex_backbones.config.nodes import as_config
from detrex_backbones.errors import ConfigImportError, DetrexBackbonesError, closest

__all__ = ["DEFINED_IN_A_CONFIG", "execute"]

DEFINED_IN_A_CONFIG = _file.__name__
"""The `__module__` of functions and classes defined in a config file."""

# The files being executed in this thread, outermost first.
_loading: contextvars.ContextVar[tuple[Path, ...]] = contextvars.ContextVar("loading", default=())


def execute(path: Path) -> ModuleType:
    """Run a config file, afresh each time, and return it as a module that stands in no `sys.modules`.

    Its `import` statements are its own: relative ones go by file location, and dicts they bring in become
    DictConfigs; all others go to the interpreter's import, whatever that is at the time. Nothing global is changed.

    Raises:
        ConfigImportError: the file is missing, isn't Python, imports itself, or raises (chained from what it raised).
    """
    path = path.absolute()
    chain = _loading.get()
    real = path.resolve()
    if real in chain:
        cycle = " -> ".join(str(file) for file in (*chain[chain.index(real) :], real))
        raise ConfigImportError(f"These config files import each other in a circle: {cycle}.")
    code = _compile(path)
    module = ModuleType(DEFINED_IN_A_CONFIG)
    module.__file__ = str(path)
    module.__package__ = ""
    vars(module)["__builtins__"] = {**vars(builtins), "__import__": _importer(path)}
    token = _loading.set((*chain, real))
    try:
        exec(code, vars(module))
    except DetrexBackbonesError as error:
        _name_file(error, path)
        raise
    except Exception as error:
        raise _raised(error, path, chain) from error
    finally:
        _loading.reset(token)
    return module


def _compile(path: Path) -> CodeType:
    if not path.is_file():
        beside = [file.name for file in path.parent.glob("*")] if path.parent.is_dir() else []
        raise ConfigImportError(f"The config file {path} does not exist.{closest(path.name, beside)}{_imported_from()}")
    try:
        return compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        raise ConfigImportError(f"{path}:{error.lineno or 1} isn't Python: {error.msg}.{_imported_from()}") from error
    except (OSError, ValueError) as error:
        raise ConfigImportError(f"The config file {path} can't be read: {error}.{_imported_from()}") from error


def _imported_from() -> str:
    """The rest of a message: the files whose imports led here, innermost first."""
    return _chain_text(_loading.get())


def _chain_text(chain: tuple[Path, ...]) -> str:
    return f" It is imported from {', which is imported from '.join(map(str, reversed(chain)))}." if chain else ""


def _raised(error: Exception, path: Path, chain: tuple[Path, ...]) -> ConfigImportError:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = frames[-1].lineno if frames else 1
    return ConfigImportError(f"{path}:{line} raised {type(error).__name__}: {error}{_stop(error)}{_chain_text(chain)}")


def _stop(error: Exception) -> str:
    return "" if str(error).endswith((".", "?", "!")) else "."


def _name_file(error: DetrexBackbonesError, path: Path) -> None:
    """Add the innermost config file to an error of ours that doesn't name it."""
    told = [str(error), *getattr(error, "__notes__", [])]
    if not isinstance(error, ConfigImportError) and not any("while loading the config file" in text for text in told):
        add_note(error, f"while loading the config file {path}")


def _importer(path: Path) -> Any:
    """The `__import__` of the config file `path`."""

    def import_(
        name: str,
        globals: Any = None,
        locals: Any = None,
        fromlist: Any = (),
        level: int = 0,
    ) -> Any:
        if level == 0:
            return builtins.__import__(name, globals, locals, fromlist, level)
        return _import_relative(path, name, tuple(fromlist or ()), level)

    return import_


def _import_relative(importer: Path, name: str, names: tuple[str, ...], level: int) -> ModuleType:
    """`from ..name import names`, by file location."""
    statement = f"from {'.' * level}{name} import {', '.join(names)}"
    folder = importer.parents[min(level, len(importer.parents)) - 1]
    target = folder.joinpath(*name.split("."))
    file = target.with_name(target.name + ".py") if name else target
    where = f"{importer}:{_line(importer)}"
    if not name or (target.is_dir() and not file.is_file()):
        raise ConfigImportError(
            f"{where}: {statement!r} is a relative import of a folder, {target}. "
            "In a config file a relative import names a file: 'from .file import name'."
        )
    if "*" in names:
        raise ConfigImportError(
            f"{where}: {statement!r} would import everything from {file}. Name what you need of it."
        )
    if not file.is_file():
        near = closest(file.name, [f.name for f in file.parent.glob("*.py")]) if file.parent.is_dir() else ""
        raise ConfigImportError(f"{where}: {statement!r} needs the file {file}, which does not exist.{near}")
    module = execute(file)
    for wanted in names:
        if not hasattr(module, wanted):
            offered = [known for known in vars(module) if not known.startswith("_")]
            raise ConfigImportError(
                f"{where}: {file} has no {wanted!r}.{closest(wanted, offered)} It has: {', '.join(offered)}."
            )
        setattr(module, wanted, as_config(getattr(module, wanted)))
    return module


def _line(importer: Path) -> int:
    """The line of `importer` that is running."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename != str(importer) and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_lineno
