"""How a config file is executed, and how its relative imports find the files beside it."""

from __future__ import annotations

import ast
import builtins
import contextlib
import contextvars
import importlib.util
import inspect
import linecache
import sys
import traceback
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from detrex_backbones.config import defined_in_a_config_file
from detrex_backbones.config._notes import add_note
from detrex_backbones.config.nodes import as_config
from detrex_backbones.config.peers import import_instead
from detrex_backbones.errors import ConfigImportError, DetrexBackbonesError, closest

__all__ = ["DEFINED_IN_A_CONFIG", "execute", "file_of"]

DEFINED_IN_A_CONFIG = defined_in_a_config_file.__name__
"""The `__module__` of functions and classes defined in a config file."""

# Class -> the config file that made it.
_made_in: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()

# The files being executed in this thread, outermost first.
_loading: contextvars.ContextVar[tuple[Path, ...]] = contextvars.ContextVar("loading", default=())


def execute(path: Path) -> ModuleType:
    """Run a config file, afresh each time, and return it as a module that stands in no `sys.modules`.

    Its `import` statements are its own: relative ones go by file location, and dicts they bring in become
    DictConfigs; all others go to the interpreter's import, whatever that is at the time. Nothing global is changed.
    What works in a module works in it, but for pickling the functions and classes that it defines.

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
    build = _BuildClass()
    own = {"__import__": _importer(path), "__build_class__": build}
    vars(module)["__builtins__"] = {**vars(builtins), **own}
    token = _loading.set((*chain, real))
    try:
        exec(code, vars(module))
        build.evaluate()
    except DetrexBackbonesError as error:
        _name_file(error, path)
        raise
    except Exception as error:
        raise _raised(error, path, chain) from error
    finally:
        _loading.reset(token)
    return module


def file_of(held: Any) -> str | None:
    """The config file that defines a function or class by a name of its own; None for what is made elsewhere."""
    if "<" in getattr(held, "__qualname__", "<") or getattr(held, "__module__", "") != DEFINED_IN_A_CONFIG:
        return None
    if isinstance(held, type):
        return _made_in.get(held)
    names = getattr(inspect.unwrap(held), "__globals__", {})
    return names.get("__file__") if names.get("__name__") == DEFINED_IN_A_CONFIG else None


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
    told = str(error) or linecache.getline(str(path), line or 1).strip()  # an assert without a message
    stop = "" if told.endswith((".", "?", "!")) else "."
    instead = import_instead(error, str(path), line or 1)
    return ConfigImportError(f"{path}:{line} raised {type(error).__name__}: {told}{stop}{instead}{_chain_text(chain)}")


def _name_file(error: DetrexBackbonesError, path: Path) -> None:
    """Add the innermost config file to an error of ours that doesn't name it."""
    told = [str(error), *getattr(error, "__notes__", [])]
    if not isinstance(error, ConfigImportError) and not any("while loading the config file" in text for text in told):
        add_note(error, f"while loading the config file {path}")


class _BuildClass:
    """Makes classes, and evaluates annotations that are text, as `from __future__ import annotations` has them.

    dataclasses, omegaconf and `typing.get_type_hints` would look their names up in the class's module, which is empty.
    What can't be evaluated yet, such as the name of a class further down, waits for the next class or the file's end.
    """

    def __init__(self) -> None:
        self.waiting: list[tuple[Any, str, str, dict[str, Any]]] = []

    def __call__(self, body: Any, name: str, *bases: Any, **keywords: Any) -> Any:
        made = builtins.__build_class__(body, name, *bases, **keywords)
        if isinstance(made, type):
            _made_in[made] = body.__globals__["__file__"]
        annotations: Any = None
        with contextlib.suppress(NameError):  # Python 3.14 evaluates what is no text here
            annotations = getattr(made, "__annotations__", None)
        for key, value in annotations.items() if isinstance(annotations, dict) else ():
            text = getattr(value, "__forward_arg__", value)  # of a NamedTuple's or TypedDict's
            if isinstance(text, str):
                self.waiting.append((made, key, text, body.__globals__))
        self.evaluate({getattr(made, "__name__", name): made})
        return made

    def evaluate(self, unbound: Mapping[str, Any] | None = None) -> None:
        """Go through what waits; `unbound` is a class that isn't known by its name before its decorators are done."""
        self.waiting = [one for one in self.waiting if not _evaluated(*one, unbound or {})]


def _evaluated(made: Any, key: str, text: str, names: dict[str, Any], unbound: Mapping[str, Any]) -> bool:
    """Put the annotation's value in the place of its text; False if it isn't known, or may be another one later."""
    for known, is_last in (({}, True), (unbound, False)):
        with contextlib.suppress(Exception):
            made.__annotations__[key] = eval(text, names, {**known, **vars(made)})
            return is_last
    return False


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
        package = _module_name(target / "__init__.py")
        absolute = f" Code of a package is imported by its whole name: 'import {package}'." if package else ""
        raise ConfigImportError(
            f"{where}: {statement!r} is a relative import of a folder, {target}. "
            f"In a config file a relative import names a file: 'from .file import name'.{absolute}"
        )
    if "*" in names:
        raise ConfigImportError(
            f"{where}: {statement!r} would import everything from {file}. Name what you need of it."
        )
    if not file.is_file():
        near = closest(file.name, [f.name for f in file.parent.glob("*.py")]) if file.parent.is_dir() else ""
        raise ConfigImportError(f"{where}: {statement!r} needs the file {file}, which does not exist.{near}")
    code = set(names) & _functions_and_classes(file)
    real = _real_module(file, where) if code else None
    if real is not None and code == set(names):
        return real
    module = execute(file)
    for wanted in names:
        if not hasattr(module, wanted):
            offered = [known for known in vars(module) if not known.startswith("_")]
            raise ConfigImportError(
                f"{where}: {file} has no {wanted!r}.{closest(wanted, offered)} It has: {', '.join(offered)}."
            )
        found = real if real is not None and wanted in code else module
        setattr(module, wanted, as_config(getattr(found, wanted)))
    return module


def _functions_and_classes(file: Path) -> set[str]:
    """The names that a file gives to functions and classes of its own."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    try:
        return {statement.name for statement in ast.parse(file.read_bytes()).body if isinstance(statement, kinds)}
    except (SyntaxError, ValueError, OSError):  # which `execute` tells
        return set()


def _real_module(file: Path, where: str) -> ModuleType | None:
    """The module that a package's file is to everybody else, or None if it is in no package that can be imported.

    So a class that a config imports from beside it is the package's own, and no second one of the same name.
    """
    name = _module_name(file)
    try:
        spec = importlib.util.find_spec(name) if name else None
    except Exception:  # a package that can't be imported, or another of the same name
        return None
    if name is None or spec is None or spec.origin is None or not file.samefile(spec.origin):
        return None
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ConfigImportError(f"{where}: importing {name} raised {error!r}.") from error


def _module_name(file: Path) -> str | None:
    """The dotted name of a file inside a package, as far up as there are packages."""
    words = [] if file.name == "__init__.py" else [file.stem]
    folder = file.parent
    while (folder / "__init__.py").is_file():
        words.insert(0, folder.name)
        folder = folder.parent
    return ".".join(words) if len(words) > (file.name != "__init__.py") else None


def _line(importer: Path) -> int:
    """The line of `importer` that is running."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename != str(importer) and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_lineno
