"""detectron2 and detrex as they are found here: in checkouts on the path, installed or not, compiled or not.

What these tests can do without is put in place openly, and only where it is missing: the modules of
`benchmarks.peer_files.stand_ins`, and for the links to `configs/` that their `setup.py` makes the folders of the
checkouts.
"""

from __future__ import annotations

import importlib
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import detrex_backbones
from benchmarks.peer_files.stand_ins import for_detectron2, for_detrex

EXAMPLES = Path(__file__).parents[2] / "examples"

# The import lines that change.
THEIR_PARTS = re.compile(
    r"^from (detectron2\.modeling\.backbone|detectron2\.checkpoint|detrex\.modeling\.backbone[.\w]*) import (.+)$", re.M
)

# Values of norms: fresh ones are the identity, which hides mistakes. Scales below one keep what 16 blocks sum up in a
# range that heads are made for.
NORMS = {"weight": (0.2, 0.4), "bias": (-0.1, 0.1), "running_mean": (-0.1, 0.1), "running_var": (0.7, 1.3)}


def need_detectron2() -> Path:
    """The folder of detectron2's checkout; skips where there is none."""
    pytest.importorskip("detectron2.modeling", reason="detectron2 is not importable", exc_type=ImportError)
    for_detectron2()
    return _checkout("detectron2", "configs/common/models", "tools/lazyconfig_train_net.py")


def need_detrex() -> Path:
    """The folder of detrex's checkout; skips where there is none."""
    need_detectron2()
    found = find_spec("detrex")
    if found is None or not found.submodule_search_locations:
        pytest.skip("detrex is not importable", allow_module_level=True)
    for_detrex()
    for name in ("detrex.modeling", "projects.dino.modeling"):
        pytest.importorskip(name, reason=f"{name} is not importable", exc_type=ImportError)
    return _checkout("detrex", "configs/common", "projects/detr/configs", "tools/train_net.py")


def _checkout(package: str, *paths: str) -> Path:
    root = Path(importlib.import_module(package).__file__ or "").parents[1]
    missing = [path for path in paths if not (root / path).exists()]
    if missing:
        pytest.skip(f"{package} is installed without {', '.join(missing)}", allow_module_level=True)
    return root


def link_configs(monkeypatch: pytest.MonkeyPatch, **roots: Path) -> None:
    """Let `get_config` of detectron2's model zoo and of detrex find the configs of checkouts that aren't installed."""
    import pkg_resources

    installed = pkg_resources.resource_filename

    def find(package: str, name: str) -> str:
        root = roots.get(package.partition(".")[0])
        path = Path(installed(package, name))
        return str(root / name if root and not path.exists() else path)

    monkeypatch.setattr(pkg_resources, "resource_filename", find)


def with_our_imports(text: str) -> str:
    """A file of theirs, in which the backbones that we have, too, are imported from us. Nothing else is touched."""

    def ours(line: re.Match[str]) -> str:
        names = [name.strip() for name in line[2].split(",")]
        had = detrex_backbones.__all__
        modules = {name: "detrex_backbones" if name in had else line[1] for name in names}
        return "\n".join(f"from {module} import {name}" for name, module in modules.items())

    return THEIR_PARTS.sub(ours, text)


def twin_of(config: Path, folder: Path) -> Path:
    """A copy of a config of theirs, with all that lies around it, whose import lines are changed."""
    shutil.copytree(config.parents[1], folder, dirs_exist_ok=True)
    path = folder / config.parent.name / config.name
    for file in path.parent.glob("*.py"):
        file.write_text(with_our_imports(file.read_text(encoding="utf-8")), encoding="utf-8")
    assert path.read_text(encoding="utf-8") != config.read_text(encoding="utf-8")
    return path


def fill_norms(net: nn.Module, seed: int = 0) -> nn.Module:
    """Random values in every batch norm, frozen or not, in place."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if hasattr(module, "running_mean"):
            for name, (low, high) in NORMS.items():
                getattr(module, name).data.uniform_(low, high, generator=generator)
    return net


def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What detrex moves to "cuda" whatever the model's device is stays where it is."""
    to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self, *_, **__: self)
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, *a, **k: to(self, *("cpu" if x == "cuda" else x for x in a), **k)
    )


def largest_difference(ours: Any, theirs: Any) -> float:
    """Over all tensors of two dicts, relative to the largest number of each; the shapes must agree."""
    assert list(ours) == list(theirs)
    worst = 0.0
    for key, value in theirs.items():
        one, other = (getattr(tensor, "tensor", tensor).detach().double() for tensor in (ours[key], value))
        assert one.shape == other.shape, key
        assert torch.isfinite(other).all() and other.numel(), key
        worst = max(worst, ((one - other).abs().max() / other.abs().max().clamp(min=1e-12)).item())
    return worst
