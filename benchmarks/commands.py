"""What the commands make a user wait for, from the start of the process, beside the import of torch."""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import torchvision

from benchmarks.measure import Options, Row, attempt, in_processes
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
            yield attempt(GROUP, what, functools.partial(_command, what, [*words, *files], options.rounds_or(7)))


def _command(what: str, words: list[str], rounds: int) -> Row:
    times = in_processes({"ours": [*COMMAND, *words], "import torch": "import torch"}, rounds)
    if words[0] not in ("show", "match"):
        return paired(GROUP, what, times, against=["import torch"], at_most=SHARE)
    return above(paired(GROUP, what, times, against=["import torch"]), times, "import torch", EXTRA)
