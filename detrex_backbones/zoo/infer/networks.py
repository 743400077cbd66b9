"""Which networks take a file, by trying: those of the ready configs, and timm's whose weights have its shapes."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from omegaconf import DictConfig
from torch import nn

from detrex_backbones.checkpoint.fetch.catalog.timm_shapes import networks_of_shapes
from detrex_backbones.checkpoint.files import Checkpoint
from detrex_backbones.checkpoint.load import plan_load
from detrex_backbones.checkpoint.match.refusals import check_report
from detrex_backbones.checkpoint.match.traits import check_traits, traits_of
from detrex_backbones.checkpoint.names.readings import AS_STORED, each_reading
from detrex_backbones.checkpoint.options import LoadOptions
from detrex_backbones.checkpoint.report import LoadReport
from detrex_backbones.config import LazyCall
from detrex_backbones.errors import DetrexBackbonesError
from detrex_backbones.zoo.listing import TIMM
from detrex_backbones.zoo.meta_build import build_on_meta
from detrex_backbones.zoo.ready_configs import get_config, list_configs

__all__ = ["Fit", "fitting_networks", "fitting_ready", "fitting_timm", "try_load"]

# Whose networks are found otherwise: ResNets by their names and shapes, timm's by all of timm's.
FOUND_OTHERWISE = ("detectors", "gluon", "resnet", "timm")
ALSO = ("rf_detr",)  # a plain ViT in windows: its file is that ViT's as well, which is named first
TRIED, NAMED = 8, 4  # networks of the same shapes: more are not built, more fitting ones not named
RELATED = 0.5  # of a network's kinds of names that a file of its family has, at another depth and width, too
TIMMS_NAMES = (AS_STORED, "timm")
LAST_PARTS = 3  # of a name, without numbers: its kind


@dataclass(frozen=True)
class Fit:
    """A network that takes a file.

    Args:
        name: as `backbone=` takes it.
        report: of the load.
        override: what takes it in the place of `backbone=NAME`; "" for that.
    """

    name: str
    report: LoadReport
    override: str = ""

    @property
    def bare(self) -> str:
        """A timm network's name as timm has it."""
        return self.name.removeprefix(TIMM)

    @property
    def called(self) -> str:
        """What people call it."""
        return f"timm's {self.bare}" if self.name.startswith(TIMM) else f"the network of {self.name}"

    @property
    def changed(self) -> int:
        """How many values are changed on their way into it: tables of another size."""
        return sum(bool(entry.adapted) for entry in self.report.loaded)


def fitting_networks(opened: Checkpoint, options: LoadOptions) -> list[Fit]:
    """The networks that take a file: those of ready configs, or else timm's; of each those that change least of it.

    Args:
        opened: the weights.
        options: how they are loaded. What only the file can tell, its preprocessing, is not compared.
    """
    ready = fitting_ready(opened, options)
    also = (fit for folder in ALSO for fit in _of_folder(_folders()[folder], _Names(opened, options), opened, options))
    return ready or [*fitting_timm(opened, options), *also]


def fitting_ready(opened: Checkpoint, options: LoadOptions) -> list[Fit]:
    """Those of the ready configs whose classes are neither ResNet nor TimmBackbone: all of one family."""
    of_file = _Names(opened, options)
    for folder, names in _folders().items():
        found = _least_changed(_of_folder(names, of_file, opened, options)) if folder not in ALSO else []
        if found:
            return found
    return []


def fitting_timm(
    opened: Checkpoint, options: LoadOptions, node_of: Callable[[str], DictConfig] | None = None
) -> list[Fit]:
    """timm's networks; [] where too many have these shapes to be tried.

    Args:
        opened: the weights.
        options: how they are loaded.
        node_of: from timm's name to the node that is to take the file; None for a TimmBackbone alone.
    """
    names = _names_by_shapes(opened, options)
    if len(names) > TRIED:
        return []
    fits = []
    for name in names:
        with suppress(DetrexBackbonesError):
            fits.append(Fit(f"{TIMM}{name}", try_load((node_of or _timm_node)(name), opened, options)))
    return _least_changed(fits)


def try_load(node: DictConfig, opened: Checkpoint, options: LoadOptions) -> LoadReport:
    """What a load into the node's model would do, without memory for weights.

    Raises:
        DetrexBackbonesError: the model can't be built, or the load is refused.
    """
    return _accepted(build_on_meta(node), opened, options)


def _accepted(model: nn.Module, opened: Checkpoint, options: LoadOptions) -> LoadReport:
    report = plan_load(model, model.state_dict(), opened, options).report
    check_report(report, options.allow_missing, options.allow_unused)
    check_traits(traits_of(model, report.scope), report, options.check_preprocessing, options.source)
    return report


def _least_changed(fits: Iterable[Fit]) -> list[Fit]:
    """Those that change as little of the file as the best, where these are few."""
    found = list(fits)
    fewest = min((fit.changed for fit in found), default=0)
    best = [fit for fit in found if fit.changed == fewest]
    return best if len(best) <= NAMED else []


@functools.cache
def _folders() -> dict[str, list[str]]:
    """Folder -> the ready configs in it."""
    folders: dict[str, list[str]] = {}
    for name in list_configs():
        folders.setdefault(name.partition("/")[0], []).append(name)
    return {folder: names for folder, names in folders.items() if folder not in FOUND_OTHERWISE}


def _of_folder(names: Sequence[str], of_file: _Names, opened: Checkpoint, options: LoadOptions) -> Iterator[Fit]:
    """Those of one family that take the file; the first of them tells whether it is of the family at all."""
    for number, name in enumerate(names):
        node = get_config(name).model.backbone
        if "model_name" in node and node.model_name not in of_file.timms:
            continue  # one of timm's: there is no need to build it
        model = build_on_meta(node)
        own = _kinds(model.state_dict())
        if not number and all(len(own & each) < RELATED * len(own) for each in of_file.kinds):
            return
        with suppress(DetrexBackbonesError):
            report = _accepted(model, opened, options)
            if "model_name" not in node or report.source not in TIMMS_NAMES:  # else the weights are timm's own
                yield Fit(name.removesuffix(".py"), report)


class _Names:
    """What the names and shapes in a file tell.

    Attributes:
        kinds: the kinds of names in each way to read it.
        timms: timm's networks of its shapes.
    """

    def __init__(self, opened: Checkpoint, options: LoadOptions) -> None:
        self.kinds = [_kinds(each.named) for each in each_reading(opened.tensors, options.source, options.prefix)]
        self._given = opened, options

    @functools.cached_property
    def timms(self) -> set[str]:
        return set(_names_by_shapes(*self._given))


def _kinds(names: Iterable[str]) -> set[str]:
    """The ends of names without their numbers, which networks of a family have in common."""
    return {".".join(re.sub(r"\d+", "#", name).split(".")[-LAST_PARTS:]) for name in names}


def _timm_node(name: str) -> DictConfig:
    from detrex_backbones.backbones.timm import TimmBackbone  # which imports timm

    node: DictConfig = LazyCall(TimmBackbone)(model_name=name)
    return node


def _names_by_shapes(opened: Checkpoint, options: LoadOptions) -> list[str]:
    """timm's networks of these shapes, as the file has them or as a convention reads them."""
    stored = {name: tensor.shape for name, tensor in opened.tensors.items() if tensor.dtype.is_floating_point}
    found = networks_of_shapes(stored)
    for reading in each_reading(opened.tensors, options.source, options.prefix):
        if reading.source != AS_STORED:
            found += networks_of_shapes(reading.shapes)
    return list(dict.fromkeys(found))
