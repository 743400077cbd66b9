"""This library beside its peers: `python -m benchmarks`.

Every group is a module of this package with `rows(options) -> Iterator[Row]`. Each row is printed as soon as it is
there, and at the end one table of all. One page of runs on several machines:
`python -m benchmarks --read cpu.json gpu.json --markdown benchmarks/RESULTS.md`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import Options, Row, failure
from benchmarks.table import line, machine, markdown, text

GROUPS = (
    *("startup", "commands", "building", "configs", "matching", "loading"),
    *("training", "inference", "compiled", "attention", "families", "memory", "features"),
)

Run = tuple[dict[str, Any], list[Row]]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; 1 if a row failed, else 0 (a target that is missed is a result)."""
    arguments = _parser().parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        _parser().error("--device cuda: torch finds no GPU here; leave it out, or give cpu.")
    runs = [run for path in arguments.read for run in _read(path)]
    if not runs:
        options = Options(arguments.device, arguments.rounds)
        runs = [(machine(options), [])]
        for row in _measured(arguments.only or GROUPS, options):
            runs[0][1].append(row)
            _write(arguments.json, runs)
    for _, rows in runs:
        print(text(rows))
    _write(arguments.json, runs)
    if arguments.markdown:
        arguments.markdown.write_text(markdown(runs))
    return int(any(row.failed for _, rows in runs for row in rows))


def _measured(groups: Sequence[str], options: Options) -> Iterator[Row]:
    for group in groups:
        for row in _rows(group, options):
            print(line(row), flush=True)
            yield row


def _rows(group: str, options: Options) -> Iterator[Row]:
    """A group's rows; what it raises beyond a single row becomes the last of them."""
    try:
        yield from importlib.import_module(f"benchmarks.{group}").rows(options)
    except Exception as error:  # whatever it is, it belongs in the table, and the next group is measured
        yield failure(group, "the rest of the group", error)


def _write(path: Path | None, runs: Sequence[Run]) -> None:
    """The numbers so far: of a run of an hour that is stopped, what was measured stays."""
    if path is not None:
        written = [{"machine": found, "rows": [asdict(row) for row in rows]} for found, rows in runs]
        path.write_text(json.dumps(written, indent=1) + "\n")


def _read(path: Path) -> list[Run]:
    return [(run["machine"], [Row(**row) for row in run["rows"]]) for run in json.loads(path.read_text())]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="This library beside its peers.")
    parser.add_argument("--only", nargs="+", choices=GROUPS, metavar="GROUP", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="how often each is measured")
    there = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default=there, help="default here: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers and the machine")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page of results")
    parser.add_argument(
        "--read", type=Path, nargs="+", default=[], metavar="FILE", help="measure nothing; show what --json wrote"
    )
    return parser


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} rounds; at least 1 is needed")
    return value


if __name__ == "__main__":
    sys.exit(main())
