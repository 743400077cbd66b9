"""From a checkpoint to a model: plan, check everything, then copy, look whether it is there, and report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from detrex_backbones.checkpoint.files import Checkpoint, Given, load_values, open_checkpoint
from detrex_backbones.checkpoint.match.choice import plan_best
from detrex_backbones.checkpoint.match.model_facts import ModelFacts, random_before_maps
from detrex_backbones.checkpoint.match.plan import Attempt
from detrex_backbones.checkpoint.match.refusals import check_report
from detrex_backbones.checkpoint.match.traits import check_traits, traits_of
from detrex_backbones.checkpoint.place.by_themselves import ByThemselves
from detrex_backbones.checkpoint.place.dense import check_casts, place_values, targets_of
from detrex_backbones.checkpoint.place.writable import LAZY
from detrex_backbones.checkpoint.read import LazyTensor, load_tensors
from detrex_backbones.checkpoint.report import LoadReport
from detrex_backbones.errors import ArgumentError, CheckpointMatchError, closest

__all__ = [
    "LoadOptions",
    "apply_checkpoint",
    "check_checkpoint",
    "copy_checkpoint",
    "load_checkpoint",
    "log_report",
    "plan_load",
]

logger = logging.getLogger(__name__)

CHECKS = ("error", "warn", "off")


@dataclass(frozen=True)
class LoadOptions:
    """How a checkpoint is loaded; see `load_checkpoint` for each."""

    source: str | None = None
    prefix: str | None = None
    scope: str | None = None
    container: str | None = None
    allow_missing: Iterable[str] = ()
    allow_unused: Iterable[str] = ()
    stem_adapt: str = "error"
    swap_channels: bool = False
    resize_positions: bool = True
    check_preprocessing: str = "error"

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> LoadOptions:
        """Options by their names; an unknown one is an error that names the closest."""
        allowed = [field.name for field in fields(cls)]
        for name in options:
            if name not in allowed:
                raise ArgumentError(
                    f"{name!r} is no option of a load. Allowed: {', '.join(allowed)}.{closest(name, allowed)}"
                )
        return cls(**options)

    @property
    def reading(self) -> dict[str, Any]:
        """Those that say how the file is read, as `plan_checkpoint` takes them."""
        names = ("source", "prefix", "scope", "stem_adapt", "swap_channels", "resize_positions")
        return {name: getattr(self, name) for name in names}

    def __post_init__(self) -> None:
        if not isinstance(self.resize_positions, bool):
            raise ArgumentError(f"resize_positions={self.resize_positions!r} is not known. Allowed: True, False.")
        if self.check_preprocessing not in CHECKS:
            raise ArgumentError(
                f"check_preprocessing={self.check_preprocessing!r} is not known. Allowed: {', '.join(CHECKS)}."
                f"{closest(self.check_preprocessing, CHECKS)}"
            )


def load_checkpoint(
    model: nn.Module,
    path: Given,
    *,
    source: str | None = None,
    prefix: str | None = None,
    scope: str | None = None,
    container: str | None = None,
    allow_missing: Iterable[str] = (),
    allow_unused: Iterable[str] = (),
    stem_adapt: str = "error",
    swap_channels: bool = False,
    resize_positions: bool = True,
    check_preprocessing: str = "error",
) -> LoadReport:
    """Load a checkpoint into a model, all of it into the right place, or refuse.

    The naming convention is recognised from the keys, and the submodule that the checkpoint is for from the names.
    Every parameter and buffer of that submodule must get a value. Where an error is raised the model keeps the weights
    that it had. dtype and device of the model stay; values are cast and copied, and compared with the file afterwards.

    Args:
        model: changed in place.
        path: of the checkpoint, or the name of known weights: "torchvision://resnet50-v2"; an open binary file or
            `io.BytesIO`, read from where it stands; the weights themselves, a mapping of names to tensors; or what
            `read_checkpoint` gave.
        source: name of the convention ("torchvision", "detectron2", ..., "as stored"); None to recognise it.
        prefix: what stands before the network's names in the file: "backbone", "teacher"; None to find it.
        scope: path of the submodule of the model; "" for the whole model, None to find it.
        container: the keys that lead to the weights in the file, with dots between them, an item of a list by its
            number: "ema.module", "models.0"; None to take those that fit the model, averages before what they were
            made of.
        allow_missing: globs of model keys that may stay without a value or have another shape, with or without the
            scope before them: "linear.*".
        allow_unused: globs of the file's keys that need no place, though they are of the network: "roi_heads.mask_*".
        stem_adapt: what to do where the model takes another number of channels than the file's: "error", "repeat" (as
            timm does it), "mean" or "zero"; see `stem_adapt.adapt_channels`.
        swap_channels: swap RGB and BGR in the first convolution.
        resize_positions: resize tables of positions (`pos_embed`, `rel_pos_h`, `relative_position_bias_table`) for the
            model's size as the family's authors do it, and say so in the report; False refuses another size.
        check_preprocessing: what to do where the model's mean, standard deviation, channel order, place of the stride,
            kind of DC5 or eps are not those of known weights: "error", "warn" or "off".

    Returns:
        What went where.

    Raises:
        CheckpointFileError: the file can't be read.
        CheckpointMatchError: it doesn't fit: nothing matched, parameters would be left without a value, or stages of
            the model have no place for what the file has of them. Its `report` has every key.
        PreprocessingError: known weights, and the model contradicts what they were trained with.
        ArgumentError: an unknown option, a model on the meta device.
    """
    options = LoadOptions(
        source=source,
        prefix=prefix,
        scope=scope,
        container=container,
        allow_missing=_globs(allow_missing),
        allow_unused=_globs(allow_unused),
        stem_adapt=stem_adapt,
        swap_channels=swap_channels,
        resize_positions=resize_positions,
        check_preprocessing=check_preprocessing,
    )
    with open_checkpoint(path, container) as checkpoint:
        report = apply_checkpoint(model, checkpoint, options)
    log_report(report)
    return report


def log_report(report: LoadReport) -> None:
    """Say what was loaded, and warn of what stays random where it spoils the maps."""
    logger.info("loaded a checkpoint\n%s", report)
    if report.before_maps:
        logger.warning("%s: %s keep random values", report.path, report.before_maps_text())


def _globs(given: Iterable[str]) -> Iterable[str]:
    return given if isinstance(given, str) else tuple(given)  # a string is refused by its name later


def apply_checkpoint(model: nn.Module, checkpoint: Checkpoint, options: LoadOptions) -> LoadReport:
    """`load_checkpoint` for a checkpoint that was read already."""
    targets = targets_of(model)
    attempt = _check(model, targets, checkpoint, options)
    _place(model, targets, checkpoint, attempt)
    return attempt.report


def check_checkpoint(model: nn.Module, checkpoint: Checkpoint, options: LoadOptions) -> Attempt:
    """What `apply_checkpoint` will do, or its error. Changes nothing."""
    return _check(model, targets_of(model), checkpoint, options)


def copy_checkpoint(
    model: nn.Module,
    checkpoint: Checkpoint,
    attempt: Attempt,
    beside: Callable[[], Callable[[], object]] = lambda: lambda: None,
) -> None:
    """Do what `check_checkpoint` found, all or nothing; see `place_values`."""
    _place(model, targets_of(model), checkpoint, attempt, beside)


def _place(
    model: nn.Module,
    targets: dict[str, Tensor],
    checkpoint: Checkpoint,
    attempt: Attempt,
    beside: Callable[[], Callable[[], object]] = lambda: lambda: None,
) -> None:
    values = load_values(checkpoint, attempt.values, owned=False)
    place_values(model, targets, values, attempt.report, beside, ByThemselves(model, attempt.tasks))


def plan_load(model: nn.Module, state: Mapping[str, object], checkpoint: Checkpoint, options: LoadOptions) -> Attempt:
    """What a load would do. Nothing is refused yet.

    Args:
        model: maybe on the meta device.
        state: its state dict.
        checkpoint: the file, open.
        options: how it is read.
    """
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    shapes = {key: () if isinstance(value, LAZY) else tuple(value.shape) for key, value in tensors.items()}
    attempt = plan_best(shapes, checkpoint, facts=ModelFacts(model), **options.reading)
    attempt.report.before_maps = random_before_maps(model, attempt.report)
    return attempt


def _check(model: nn.Module, targets: dict[str, Tensor], checkpoint: Checkpoint, options: LoadOptions) -> Attempt:
    attempt = plan_load(model, targets, checkpoint, options)
    report, values = attempt.report, attempt.values
    check_report(report, options.allow_missing, options.allow_unused)
    check_casts({key: value.dtype for key, value in values.items()}, targets, report)
    _check_shared(targets, values, report)
    check_traits(traits_of(model, report.scope), report, options.check_preprocessing)
    for entry in report.loaded:
        stored, wanted = values[entry.model_key].dtype, targets[entry.model_key].dtype
        if stored != wanted:
            entry.cast = f"{stored} -> {wanted}".replace("torch.", "")
    return attempt


def _check_shared(targets: dict[str, Tensor], values: dict[str, LazyTensor], report: LoadReport) -> None:
    """Refuse a file with different values for one tensor that the model has under several names."""
    first: dict[int, str] = {}
    for key, value in values.items():
        other = first.setdefault(id(targets[key]), key)
        if other != key and value is not values[other] and not _equal(*load_tensors([value, values[other]])):
            raise CheckpointMatchError(
                f"checkpoint {report.path!r} has different values for {other!r} and {key!r}, which are one tensor in "
                "the model. Build the model that the file is for, with a module of its own for each.",
                report,
            )


def _equal(one: Tensor, other: Tensor) -> bool:
    # NaN equals itself here: what is not finite is reported, not refused.
    return one.shape == other.shape and torch.allclose(one.double(), other.double(), rtol=0, atol=0, equal_nan=True)
