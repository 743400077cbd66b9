"""What only the model's modules can tell: all that their networks have, and what makes the maps that are given out."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

from detrex_backbones.checkpoint.entry import Shapes
from detrex_backbones.checkpoint.match.positions import Grid, grids_of
from detrex_backbones.checkpoint.names.original_files import FromOriginal
from detrex_backbones.checkpoint.report import LoadReport

__all__ = ["ModelFacts", "random_before_maps"]


class ModelFacts:
    """What a model's modules tell of it beyond names and shapes. Each is asked only where it is needed.

    Args:
        model: None for names and shapes alone, of which nothing more is known.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        self._model = nn.Module() if model is None else model

    def whole_networks(self) -> Shapes:
        """Name -> shape of what the networks in the model have where nothing is left out of them; {} if none says so.

        A backbone that is cut behind its last map says so by `whole_network()`: see `backbones.Backbone`.
        """
        found: dict[str, tuple[int, ...]] = {}
        for module in self._model.modules():
            tell = getattr(module, "whole_network", None)
            found |= tell() if callable(tell) else {}
        return found

    def original_readers(self) -> dict[str, FromOriginal]:
        """Path of each network in the model that can read its authors' files -> how it does; see `original_files`."""
        found = {path: getattr(module, "from_original", None) for path, module in self._model.named_modules()}
        return {path: read for path, read in found.items() if callable(read)}

    def submodule(self, scope: str) -> nn.Module | None:
        """The module whose keys start with a scope; None where that is no module."""
        try:
            return self._model.get_submodule(scope.rstrip("."))
        except AttributeError:
            return None

    def same_tensors(self) -> list[set[str]]:
        """Keys under which the model has one tensor: tied weights, a module that stands in it twice."""
        found: dict[tuple[object, ...], set[str]] = defaultdict(set)
        for key, value in self._model.state_dict(keep_vars=True).items():
            if isinstance(value, Tensor):
                found[_memory(value)].add(key)
        return [keys for keys in found.values() if len(keys) > 1]

    def position_grids(self) -> dict[str, Grid]:
        """Key of each table of positions -> the grid that it is of; see `positions`."""
        return grids_of(self._model)


def _memory(value: Tensor) -> tuple[object, ...]:
    """What two keys of one tensor have in common: the object, or the same numbers of one storage."""
    if type(value) not in (Tensor, nn.Parameter) or value.layout is not torch.strided or not value.data_ptr():
        return (id(value),)
    return (value.data_ptr(), value.dtype, value.shape, value.stride())


def random_before_maps(model: nn.Module, report: LoadReport) -> list[str]:
    """Keys that the file has no value for, and that lie between what was loaded and the maps that are given out.

    They are a pyramid's, or an adapter's: of a module that holds the scope and itself says which maps it gives, by
    `output_shape()` as detectron2's backbones or by `out_channels` as torchvision's.
    """
    around = [path for path in _beginnings(report.scope) if _gives_maps(model.get_submodule(path))]
    if not around:
        return []
    outermost = f"{around[0]}." if around[0] else ""
    return [key for key in report.random if key.startswith(outermost)]


def _beginnings(path: str) -> list[str]:
    """The root, and each module on the way to `path`."""
    parts = path.split(".") if path else []
    return [".".join(parts[:count]) for count in range(len(parts) + 1)]


def _gives_maps(module: nn.Module) -> bool:
    return hasattr(module, "output_shape") or "out_channels" in vars(module)
