"""From a checkpoint to a model: plan, check everything, then copy, look whether it is there, and report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from detrex_backbones.checkpoint.files import Checkpoint, Given, load_values, open_checkpoint
from detrex_backbones.checkpoint.match.choice import plan_best
from detrex_backbones.checkpoint.match.model_facts import ModelFacts, random_before_maps
from detrex_backbones.checkpoint.match.plan import Attempt
from detrex_backbones.checkpoint.match.refusals import check_report
from detrex_backbones.checkpoint.match.traits import check_traits, traits_of
from detrex_backbones.checkpoint.options import LoadOptions, with_options
from detrex_backbones.checkpoint.place.by_themselves import ByThemselves
from detrex_backbones.checkpoint.place.dense import check_casts, place_values, targets_of
from detrex_backbones.checkpoint.read import LazyTensor, load_tensors
from detrex_backbones.checkpoint.report import LoadReport
from detrex_backbones.checkpoint.stated import stated_traits
from detrex_backbones.errors import CheckpointMatchError

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


@with_options
def load_checkpoint(model: nn.Module, path: Given, options: LoadOptions) -> LoadReport:
    """Load a checkpoint into a model, all of it into the right place, or refuse.

    The naming convention is recognised from the keys, and the submodule that the checkpoint is for from the names.
    Every parameter and buffer of that submodule must get a value. Where an error is raised the model keeps the weights
    that it had. dtype and device of the model stay; values are cast and copied, and compared with the file afterwards.

    Args:
        model: changed in place.
        path: of the checkpoint, or the name of known weights: "torchvision://resnet50-v2"; an open binary file or
            `io.BytesIO`, read from where it stands; the weights themselves, a mapping of names to tensors; or what
            `read_checkpoint` gave.
        options: as keywords, each of `LoadOptions`.

    Returns:
        What went where.

    Raises:
        CheckpointFileError: the file can't be read.
        CheckpointMatchError: it doesn't fit: nothing matched, parameters would be left without a value, or stages of
            the model have no place for what the file has of them. Its `report` has every key.
        PreprocessingError: known weights, and the model contradicts what they were trained with.
        ArgumentError: an unknown option, a model on the meta device.
    """
    with open_checkpoint(path, options.container) as checkpoint:
        report = apply_checkpoint(model, checkpoint, options)
    log_report(report)
    return report


def log_report(report: LoadReport) -> None:
    """Say what was loaded, and warn of what stays random where it spoils the maps."""
    logger.info("loaded a checkpoint\n%s", report)
    if report.before_maps:
        logger.warning("%s: %s", report.path, report.before_maps_text())


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
    shapes = {key: () if is_lazy(value) else tuple(value.shape) for key, value in tensors.items()}
    attempt = plan_best(shapes, checkpoint, facts=ModelFacts(model), **options.reading)
    attempt.report.stated = stated_traits(checkpoint)
    attempt.report.before_maps = random_before_maps(model, attempt.report)
    return attempt


def _check(model: nn.Module, targets: dict[str, Tensor], checkpoint: Checkpoint, options: LoadOptions) -> Attempt:
    attempt = plan_load(model, targets, checkpoint, options)
    report, values = attempt.report, attempt.values
    check_report(report, options.allow_missing, options.allow_unused)
    check_casts({key: value.dtype for key, value in values.items()}, targets, report)
    _check_shared(targets, values, report)
    check_traits(traits_of(model, report.scope), report, options.check_preprocessing, options.source)
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
