"""Every hostile file, in every container, with what each takes: the corpus of `tests/hostile`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.hostile.corpus import IGNORED, REFUSED
from tests.hostile.run import run_corpus

MEMORY, SECONDS = 300_000_000, 2
OF_A_BYTE = 20, 2e-7  # bytes of memory and seconds, of instructions alone: ten million keys are 60 MB of them


def run() -> dict[str, int | float | str]:
    """Load the corpus once; fails where a promise doesn't hold."""
    with tempfile.TemporaryDirectory() as folder:
        found = run_corpus(Path(folder), whole=True)
    assert found.told == "", found.told
    assert set(found.results) == set(found.fates)
    allowed = {REFUSED: ("refused",), IGNORED: ("refused", "loaded")}
    for name, result in found.results.items():
        assert result["outcome"] in allowed[found.fates[name]], (name, result)
        assert not result["caught"], (name, result)
        memory, seconds = OF_A_BYTE[0] * result["size"], OF_A_BYTE[1] * result["size"]
        assert result["bytes"] <= MEMORY + memory and result["seconds"] <= SECONDS + seconds, (name, result)
    assert found.before == found.after
    outcomes = [result["outcome"] for result in found.results.values()]
    slowest = max(found.results.values(), key=lambda result: result["seconds"])
    largest = max(found.results.values(), key=lambda result: result["bytes"])
    return {
        "files": len(outcomes),
        "refused": outcomes.count("refused"),
        "good weights loaded, the rest ignored": outcomes.count("loaded"),
        "executed, written, changed": 0,
        "most processor seconds": f"{slowest['seconds']:.1f} ({slowest['file']})",
        "most memory, MB": f"{largest['bytes'] / 1e6:.0f} ({largest['file']})",
    }
