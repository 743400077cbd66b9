"""All that only a GPU can show, in one run: `python -m benchmarks.gpu --json results.json`.

It needs no network. In this order: the tests marked `gpu`; loading to the device; training steps and inference; peak
memory; one epoch of the generated set. Each row is printed, and the file written, as soon as it is there; what raises
is a row that says so, and what no longer fits into the time is a row that says that. Beside torch 2.11 and torchvision
0.26 for Python 3.12, the wheels of `benchmarks/gpu_wheels.txt` are needed. A machine without a GPU tries the script
itself: `python -m benchmarks.gpu --device cpu --small`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.jobs import Budget, Setting, rows_of
from benchmarks.measure import Options, Row, failure
from benchmarks.table import line, machine, text
from detrex_backbones.atomic_write import write_whole

# Part -> the seconds that are to be left for those after it.
PARTS = {"suite": 300.0, "loading": 280.0, "speed": 75.0, "memory": 60.0, "epoch": 0.0}
SECONDS = 460  # of the eight minutes; the rest is for starting, and for a row that takes longer than the one before it


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; 1 if a row failed or a test did, else 0 (a target that is missed is a result)."""
    arguments = _parser().parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        _parser().error("--device cuda: torch finds no GPU here; --device cpu --small tries the script without one.")
    budget = Budget(arguments.seconds)
    found, rows = machine(Options(arguments.device)), []
    print(", ".join(f"{key} {value}" for key, value in found.items()), flush=True)
    start = time.monotonic()
    for part in arguments.only or PARTS:
        keep = PARTS[part] * arguments.seconds / SECONDS
        setting = Setting(arguments.device, arguments.small, budget, keep)
        try:
            for row in rows_of(part, importlib.import_module(f"benchmarks.gpu.{part}"), setting):
                rows.append(row)
                print(f"[{time.monotonic() - start:.0f} s] {line(row)}", flush=True)
                _write(arguments.json, found, rows)
        except Exception as error:  # such as an import that fails
            rows.append(failure(part, "the whole part", error))
            _write(arguments.json, found, rows)
    _write(arguments.json, found, rows)
    print(text(rows, 120))
    return int(any(row.failed or (row.group == "tests" and row.met is False) for row in rows))


def _write(path: Path | None, found: dict[str, Any], rows: Sequence[Row]) -> None:
    """As `python -m benchmarks --read` takes it."""
    if path is None:
        return
    written = json.dumps([{"machine": found, "rows": [asdict(row) for row in rows]}], indent=1) + "\n"
    write_whole(path, lambda file: file.write(written.encode()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="All that only a GPU can show.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="default: %(default)s")
    parser.add_argument("--small", action="store_true", help="tiny images and few rounds: only try the script")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="that all may take; default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="written after every row")
    return parser


if __name__ == "__main__":
    sys.exit(main())
