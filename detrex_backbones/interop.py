"""What happens when detectron2 is installed: our backbones count as its own.

Nothing here imports detectron2: that takes seconds, and most people who use this library don't have it. If it was
imported before us, our base class is registered with its base class at once; otherwise as soon as it is imported.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["register_with_detectron2"]

BASE_MODULE = "detectron2.modeling.backbone.backbone"


def register_with_detectron2() -> None:
    """Make `isinstance(ours, detectron2.modeling.Backbone)` true, now or when detectron2 is imported."""
    module = sys.modules.get(BASE_MODULE)
    if module is not None and hasattr(module, "Backbone"):
        _register(module)
    elif not any(isinstance(finder, _RegisterOnImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _RegisterOnImport())


def _register(module: ModuleType) -> None:
    # Here, since the package of backbones imports this module first of all.
    from detrex_backbones.backbones.base import Backbone

    module.Backbone.register(Backbone)


class _RegisterOnImport(importlib.abc.MetaPathFinder):
    """Waits for one module, lets the ordinary finders load it, registers, and is gone."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if fullname != BASE_MODULE:
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader)
        return spec


class _RegisteringLoader(importlib.abc.Loader):
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        # What reads the loader later (resources, source lines in tracebacks) shall find the ordinary one.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        _register(module)
