"""Which peers are there, and their versions: timm and torchvision always, detectron2 where it can be imported."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
from importlib import metadata
from pathlib import Path

from benchmarks.measure import in_processes

__all__ = ["detectron2_there", "versions"]


@functools.cache
def detectron2_there() -> bool:
    """Whether detectron2 can be imported, such as from a checkout on PYTHONPATH. If not, its rows say so.

    It is tried in a process of its own, as a checkout can lie there without the packages that it needs.
    """
    if importlib.util.find_spec("detectron2") is None:
        return False
    try:
        in_processes({"detectron2": "import detectron2.modeling, detectron2.checkpoint, detectron2.config"}, 1, 0)
    except RuntimeError as error:
        print(f"detectron2 is there, but can't be imported: {str(error).strip().splitlines()[-1]}")
        return False
    return True


def versions() -> dict[str, str]:
    """The versions of the peers and of what everybody stands on; detectron2's with the commit of its checkout."""
    found = {name: metadata.version(name) for name in ("torch", "torchvision", "timm", "omegaconf")}
    found["detectron2"] = _detectron2() if detectron2_there() else "not installed"
    return found


def _detectron2() -> str:
    spec = importlib.util.find_spec("detectron2")
    if said := os.environ.get("DETECTRON2_COMMIT"):  # of a copy without its history
        return f"commit {said}"
    folder = Path(spec.origin).parent.parent if spec and spec.origin else Path()
    command = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return f"commit {commit}" if commit and (folder / ".git").exists() else "no commit known"
