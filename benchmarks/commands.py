"""What the commands make a user wait for, from the start of the process, beside the import of torch."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torchvision

from benchmarks.measure import ROOT, Options, Rounds, Row, attempt, environment, in_processes
from benchmarks.pairs import above, paired

GROUP = "commands"
COMMAND = (sys.executable, "-m", "detrex_backbones")
WITHOUT_TORCH = (["--help"], ["list"], ["weights", "resnet18"])
SHARE = 0.3  # of the import of torch
WITH_TORCH = (["show", "resnet18"], ["match", "resnet18"])
EXTRA = 0.4  # seconds beyond the import of torch


def rows(options: Options) -> Iterator[Row]:
    """Commands that only print what is known, then those that build a network without memory."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "resnet18.pth"
        torch.save(torchvision.models.resnet18().state_dict(), weights)
        for words in (*WITHOUT_TORCH, *WITH_TORCH):
            files = [str(weights)] if words[0] == "match" else []
            what = f"detrex-backbones {' '.join(words)}{' FILE' * len(files)}"
            yield attempt(GROUP, what, functools.partial(_command, what, [*words, *files], options.rounds_or()))


def _command(what: str, words: list[str], rounds: Rounds) -> Row:
    times = in_processes({"ours": [*COMMAND, *words], "import torch": "import torch"}, rounds)
    if words[0] not in ("show", "match"):
        return paired(GROUP, what, times, against=["import torch"], at_most=SHARE)
    row = above(paired(GROUP, what, times, against=["import torch"]), times, "import torch", EXTRA)
    if row.met is False:
        beyond = _imports(words)
        row.note = f"what is imported beyond torch takes {beyond}; the rest is the network, and leaving the process"
    return row


def _imports(words: Sequence[str]) -> str:
    """How long a command takes to import what `import torch` doesn't, by package, those of over 10 ms."""
    with_torch = _imported("-c", "import torch")
    taken: dict[str, float] = defaultdict(float)
    for name, seconds in _imported(*COMMAND[1:], *words).items():
        if name not in with_torch:
            taken[name.partition(".")[0]] += seconds
    longest = sorted(taken.items(), key=lambda item: -item[1])
    parts = [f"{name} {1000 * seconds:.0f} ms" for name, seconds in longest if seconds > 0.01]
    return ", ".join(parts) or "next to nothing"


def _imported(*arguments: str) -> dict[str, float]:
    """Module -> seconds of its own import, without those that it imports."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    lines = re.findall(r"^import time: +(\d+) \| +\d+ \| +(\S+)$", done.stderr, re.MULTILINE)
    return {name: int(microseconds) / 1e6 for microseconds, name in lines}
