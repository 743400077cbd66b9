"""Cut files and flipped bytes in every format, with many seeds, in a process whose end is looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

from tests.damage import CUTS, EQUAL, FLIPS, OTHER, REFUSED, WRITERS, outcomes

SEEDS = 20
HUNG = 1800  # seconds


def run() -> dict[str, int | float | str]:
    """Damage files of every format; fails where the process ends, hangs, or a checksum is not looked at."""
    with tempfile.TemporaryDirectory() as folder:
        child = subprocess.run(
            [sys.executable, "-m", "tests.soak.damage", folder],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            timeout=HUNG,
        )
    assert child.returncode == 0, child.stderr[-2000:]
    found = json.loads(child.stdout)
    assert not found["torch"]["flipped"].get(OTHER, 0), found["torch"]
    figures: dict[str, int | float | str] = {"files": sum(sum(c.values()) for k in found.values() for c in k.values())}
    for kind, damages in found.items():
        for damage, counts in damages.items():
            figures[f"{kind}, {damage}"] = ", ".join(f"{counts.get(key, 0)} {key}" for key in (REFUSED, EQUAL, OTHER))
    return figures


def main(folder: Path) -> None:
    """The child: prints what became of all files."""
    warnings.simplefilter("ignore")
    found: dict[str, dict[str, Counter[str]]] = {}
    for kind in WRITERS:
        found[kind] = {"cut": Counter(), "flipped": Counter()}
        for seed in range(SEEDS):
            for damage, counts in outcomes(kind, folder, seed).items():
                if damage == "flipped" or seed == 0:
                    found[kind][damage] += counts
        assert found[kind]["cut"].total() == CUTS and found[kind]["flipped"].total() == FLIPS * SEEDS
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
