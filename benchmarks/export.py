"""Every kind of backbone as what it can be exported to: `python -m benchmarks.export [--only NAME ...] [--columns ...]
[--json F] [--markdown docs/export.md]`.

Results go into the JSON file as they come, and those that are there already stay unless they are asked for again.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.export_check import COLUMNS, Cell, Subject, run_cell
from benchmarks.export_kinds import KINDS
from benchmarks.export_table import insert

Results = dict[str, dict[str, Cell]]


@contextmanager
def limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in whatever takes longer."""

    def stop(*args: Any) -> None:
        raise TimeoutError(f"not done in {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def read(path: Path | None) -> Results:
    """The results of earlier runs."""
    if path is None or not path.is_file():
        return {}
    found = json.loads(path.read_text())
    return {name: {column: Cell(**cell) for column, cell in cells.items()} for name, cells in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", help="only the kinds with one of these in their names")
    parser.add_argument("--columns", nargs="+", choices=list(COLUMNS), default=list(COLUMNS), metavar="COLUMN")
    parser.add_argument("--backend", default="aot_eager", help="of torch.compile (aot_eager)")
    parser.add_argument("--seconds", type=int, default=600, help="for one cell (600)")
    parser.add_argument("--json", type=Path, help="read the rows of earlier runs there, and write them all")
    parser.add_argument("--markdown", type=Path, help="write the table there, between its marks")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    results = read(options.json)
    for kind in KINDS:
        if options.only and not any(part in kind.name for part in options.only):
            continue
        subject = Subject(kind, options.backend)
        for column in options.columns:
            started = time.perf_counter()
            with limit(options.seconds):
                cell = run_cell(subject, column)
            results.setdefault(kind.name, {})[column] = cell
            said = cell.text if cell.works else cell.reason[:160]
            seconds = time.perf_counter() - started
            print(f"{kind.name:32} {column:14} {cell.works!s:5} {seconds:6.1f} s  {said}", flush=True)
            if options.json:
                rows = {name: {key: asdict(value) for key, value in cells.items()} for name, cells in results.items()}
                options.json.write_text(json.dumps(rows, indent=1) + "\n")
    if options.markdown:
        text = insert(options.markdown.read_text(encoding="utf-8"), results, options.backend, torch.__version__)
        options.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
