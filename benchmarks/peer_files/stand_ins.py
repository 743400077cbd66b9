"""detectron2, detrex and OpenMMLab without what they import and never call here.

* `mmcv`'s compiled operators: whatever is asked of them.
* `wandb`, which detrex imports for a logger: an empty module.
* `fairscale` and `einops`, of which they take one and two functions: those, in a few lines.
* `detrex._C`, its kernels for a GPU: an empty module, so that its own fallback in PyTorch runs on the CPU.

Each is put in place only where it is missing.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Iterator
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch

__all__ = ["for_detectron2", "for_detrex", "without_compiled_mmcv"]

COMPILED = ("mmcv.ops", "mmcv._ext")


def for_detectron2() -> None:
    """What its transformers want: activation checkpointing of a module, and two ways to write a reshape."""
    if not _is_there("fairscale"):
        for name in ("fairscale", "fairscale.nn", "fairscale.nn.checkpoint"):
            _stand_in(name)
        sys.modules["fairscale.nn.checkpoint"].checkpoint_wrapper = lambda module: module  # type: ignore[attr-defined]
    if not _is_there("einops"):
        _stand_in("einops")
        sys.modules["einops"].rearrange = _rearrange  # type: ignore[attr-defined]
        sys.modules["einops"].repeat = _repeat  # type: ignore[attr-defined]


def for_detrex() -> None:
    """What it wants beside that."""
    for_detectron2()
    if not _is_there("wandb"):
        _stand_in("wandb")
    found = find_spec("detrex")
    folders = found.submodule_search_locations if found else None
    if folders and "detrex._C" not in sys.modules and not any(Path(folders[0]).glob("_C*.so")):
        _stand_in("detrex._C")


@contextlib.contextmanager
def without_compiled_mmcv() -> Iterator[None]:
    """Within, mmcv's compiled operators can be imported, if only by name."""
    finder = _NotCompiled()
    if find_spec("mmcv._ext") is None:
        sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)


def _is_there(name: str) -> bool:
    return name in sys.modules or find_spec(name) is not None


def _stand_in(name: str) -> None:
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__spec__ = ModuleSpec(name, None)


def _rearrange(x: torch.Tensor, pattern: str, r: int | None = None) -> torch.Tensor:
    if pattern == "... (d r) -> ... d r":
        return x.unflatten(-1, (-1, r or 1))
    assert pattern == "... d r -> ... (d r)", pattern
    return x.flatten(-2)


def _repeat(x: torch.Tensor, pattern: str, r: int) -> torch.Tensor:
    assert pattern == "... n -> ... (n r)", pattern
    return x.repeat_interleave(r, -1)


class _NotCompiled(MetaPathFinder, Loader):
    """Modules of mmcv's compiled operators, whatever is asked of them."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=True) if fullname.startswith(COMPILED) else None

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        module.__getattr__ = _anything  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        return None


def _anything(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return MagicMock()
