"""One run of the corpus through a child process, and what came of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import detrex_backbones
from tests.hostile.corpus import write_corpus

ROOT = Path(__file__).parents[2]
HUNG = 900  # seconds; only a child that hangs takes that long


@dataclass
class Run:
    """What was to become of each file, what came of it, and what lay in the folders before and after.

    `attempts` is what the child did itself, and what it was caught at; `told` why it ended, "" where all is well.
    """

    fates: dict[str, str]
    results: dict[str, dict[str, Any]]
    before: dict[str, tuple[int, int]]
    after: dict[str, tuple[int, int]]
    attempts: dict[str, list[str]]
    told: str


def run_corpus(folder: Path, whole: bool) -> Run:
    """Write the corpus into `folder`, load it in a child, and look at everything that is there afterwards."""
    corpus, scratch, place = (folder / name for name in ("corpus", "scratch", "place"))
    for part in (corpus, scratch, place):
        part.mkdir()
    fates = write_corpus(corpus, whole)
    before = listing(corpus) | listing(place)
    package = Path(detrex_backbones.__file__).parents[1]
    child = subprocess.run(
        [sys.executable, "-m", "tests.hostile.child", str(corpus), str(scratch)],
        cwd=place,
        env={**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=HUNG,
    )
    lines = [json.loads(line) for line in child.stdout.splitlines()]
    results = {line["file"]: line for line in lines if "outcome" in line}
    attempts = {line["attempt"]: line["caught"] for line in lines if "attempt" in line}
    last = lines[-1] if lines else "the start"
    told = f"exit status {child.returncode} at {last}\n{child.stderr[-2000:]}"
    after = listing(corpus) | listing(place)
    return Run(fates, results, before, after, attempts, told if child.returncode else "")


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Path -> size and time of change, of everything below a folder."""
    found = [(str(path), path.stat()) for path in folder.rglob("*")]
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in found}
