"""What torchvision and timm say of their weights, kept in files: asking the libraries takes seconds of imports.

A file is of one version of a library. Those of the versions that this release was made with are in the package; of
another version one is written into the cache when it is first asked for. `python -m
detrex_backbones.checkpoint.fetch.catalog` writes the package's files anew.
"""

from __future__ import annotations

import functools
import gzip
import importlib.metadata
import json
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from detrex_backbones.atomic_write import write_whole
from detrex_backbones.checkpoint.fetch.catalog.weight import Preprocessing, Recipe, Weight

__all__ = ["SHIPPED", "LibraryTable", "installed_version", "library_table", "read_table", "write_table"]

SHIPPED = Path(__file__).parent / "tables"
DEFAULTS = {field.name: field.default for field in fields(Weight) if field.default is not MISSING}


@dataclass(frozen=True)
class LibraryTable:
    """The networks and the weights of a library.

    Args:
        models: the names of all networks.
        weights: name without the scheme -> what is known of it, in the library's order.
    """

    models: tuple[str, ...]
    weights: dict[str, Weight]


def library_table(library: str, ask: Callable[[], LibraryTable]) -> LibraryTable | None:
    """The table of the installed version; None where the library is imported already, so that it can be asked itself.

    A program may have registered networks of its own there.

    Args:
        library: its name: "timm".
        ask: makes the table by importing the library.
    """
    return None if library in sys.modules else _kept(library, ask)


@functools.cache
def _kept(library: str, ask: Callable[[], LibraryTable]) -> LibraryTable:
    from detrex_backbones.cache import cache_folder

    version, ours = installed_version(library), installed_version("detrex-backbones")
    shipped = SHIPPED / f"{library}-{version}.json.gz"
    file = cache_folder() / "tables" / f"{library}-{version}-{ours}.json.gz"
    for kept in (shipped, file):
        with suppress(OSError, EOFError, zlib.error, ValueError, TypeError, KeyError):  # missing, or damaged
            return read_table(kept)
    table = ask()
    with suppress(OSError):  # a read-only cache costs the next command its time, nothing else
        file.parent.mkdir(parents=True, exist_ok=True)
        write_table(table, file)
    return table


def installed_version(package: str) -> str:
    """Its version, without what torchvision's builds add to it: "0.29.1" of "0.29.1+cpu". "" if it isn't installed."""
    try:
        return importlib.metadata.version(package).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return ""


def write_table(table: LibraryTable, file: Path) -> None:
    """Write a table as compressed JSON: the same table gives the same bytes."""
    weights = [[name, _fields_of(weight)] for name, weight in table.weights.items()]
    content = json.dumps({"models": table.models, "weights": weights})
    write_whole(file, lambda opened: opened.write(gzip.compress(content.encode(), mtime=0)))


def read_table(file: Path) -> LibraryTable:
    """The table of a file that `write_table` wrote."""
    content = json.loads(gzip.decompress(file.read_bytes()))
    return LibraryTable(tuple(content["models"]), {name: _weight(known) for name, known in content["weights"]})


def _fields_of(weight: Weight) -> dict[str, Any]:
    return {key: value for key, value in asdict(weight).items() if key not in DEFAULTS or value != DEFAULTS[key]}


def _weight(known: dict[str, Any]) -> Weight:
    known = _with_tuples(known)
    if "preprocessing" in known:
        pixels: dict[str, Any] = known["preprocessing"]
        known["preprocessing"] = Preprocessing(**_with_tuples(pixels))
    if "recipe" in known:
        known["recipe"] = Recipe(**known["recipe"])
    return Weight(**known)


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
