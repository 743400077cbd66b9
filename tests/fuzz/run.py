"""So many drawn files through the child process, and what must hold for each of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings

import detrex_backbones
from tests.fuzz.files import files

ROOT = Path(__file__).parents[2]
HUNG = 1800  # seconds


def draw(folder: Path, count: int, again: bool) -> None:
    """Write files, named by a number and how they were made.

    Args:
        folder: an empty one.
        count: of files.
        again: the same ones each time.
    """
    written = []

    @settings(
        max_examples=count, derandomize=again, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(files())
    def keep(file: tuple[str, bytes]) -> None:
        name, data = file
        (folder / f"{len(written):06d} {name}").write_bytes(data)
        written.append(name)

    keep()


def read(folder: Path) -> list[dict[str, Any]]:
    """What the child tells of each file. Where torch's reader ends the process, another goes on behind that file."""
    lines: list[dict[str, Any]] = []
    names, first = sorted(path.name for path in folder.iterdir()), 0
    while first < len(names):
        child = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.child", str(folder), str(first)],
            cwd=folder.parent,
            env={**os.environ, "PYTHONPATH": f"{Path(detrex_backbones.__file__).parents[1]}{os.pathsep}{ROOT}"},
            capture_output=True,
            text=True,
            timeout=HUNG,
        )
        told = [json.loads(line) for line in child.stdout.splitlines()]
        lines += told
        if child.returncode == 0:
            break
        last = told[-1] if told else {}
        assert "file" in last, f"the reader ended the process at {last}: {child.stderr[-2000:]}"
        first = names.index(last["file"]) + 1
    return lines


def check(count: int, again: bool) -> dict[str, int | float | str]:
    """Draw and read; fails where a promise doesn't hold. Returns figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "drawn")
        folder.mkdir()
        draw(folder, count, again)
        lines = read(folder)
    results = {line["file"]: line for line in lines if "file" in line}
    compared = {line["compared"]: line for line in lines if "compared" in line}
    attempts = [line for line in lines if "attempt" in line]
    assert attempts and all(line["caught"] for line in attempts), "the audit hook doesn't see"
    refusals: Counter[str] = Counter()
    for file, result in results.items():
        assert not result["caught"], result
        assert not result["why"].startswith(("NOT OURS", "an error without")), result
        assert result["why"] == "" or " right " not in file, result
        # Of each byte: a few calls, and the memory of the most expensive instructions. The constant is the error's.
        assert result["calls"] <= 100 * result["size"] + 20_000, result
        assert result["bytes"] <= 200 * result["size"] + 1_000_000, result
    for file, line in compared.items():
        assert not line["wrong"], (file, line)
        if line["accepted"] and results[file]["why"]:
            refusals[results[file]["why"].partition(": ")[2][:40]] += 1
    return {
        "files drawn": len(results),
        "of them right, and read": sum(" right " in file for file in results),
        "changed, and refused": sum(bool(result["why"]) for result in results.values()),
        "read by torch and ours, alike": sum(
            line["accepted"] and not results[file]["why"] for file, line in compared.items()
        ),
        "read by torch, refused by a rule of ours": sum(refusals.values()),
        "times that the child ended while torch read or the two were compared": sum(
            file.endswith(("torch", "torch-legacy")) and file not in compared for file in results
        ),
        "most calls for a byte": round(max(r["calls"] / max(r["size"], 1) for r in results.values()), 1),
        "rules": ", ".join(f"{rule} ({number})" for rule, number in refusals.most_common(12)),
    }
