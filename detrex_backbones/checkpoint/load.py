"""From a checkpoint to a model: plan, check everything, then copy, look whether it is there, and report."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detrex_backbones.checkpoint.check import check_report
from detrex_backbones.checkpoint.files import Checkpoint, read_checkpoint
from detrex_backbones.checkpoint.plan import Attempt, plan_checkpoint
from detrex_backbones.checkpoint.preprocessing import check_traits, traits_of
from detrex_backbones.checkpoint.report import Loaded, LoadReport, shorten
from detrex_backbones.checkpoint.sharded import local, part
from detrex_backbones.errors import ArgumentError, CheckpointMatchError, closest

__all__ = [
    "LoadOptions",
    "apply_checkpoint",
    "check_checkpoint",
    "copy_checkpoint",
    "doubtful",
    "is_there",
    "load_checkpoint",
    "refuse_wrong",
    "targets_of",
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
    stem_adapt: str = "error"
    swap_channels: bool = False
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
        names = ("source", "prefix", "scope", "stem_adapt", "swap_channels")
        return {name: getattr(self, name) for name in names}

    def __post_init__(self) -> None:
        if self.check_preprocessing not in CHECKS:
            raise ArgumentError(
                f"check_preprocessing={self.check_preprocessing!r} is not known. Allowed: {', '.join(CHECKS)}."
                f"{closest(self.check_preprocessing, CHECKS)}"
            )


def load_checkpoint(
    model: nn.Module,
    path: str | Path,
    *,
    source: str | None = None,
    prefix: str | None = None,
    scope: str | None = None,
    container: str | None = None,
    allow_missing: Iterable[str] = (),
    stem_adapt: str = "error",
    swap_channels: bool = False,
    check_preprocessing: str = "error",
) -> LoadReport:
    """Load a checkpoint into a model, all of it into the right place, or refuse.

    The naming convention is recognised from the keys, and the submodule that the checkpoint is for from the names.
    Every parameter and buffer of that submodule must get a value. Where an error is raised the model keeps the weights
    that it had. dtype and device of the model stay; values are cast and copied, and compared with the file afterwards.

    Args:
        model: changed in place.
        path: of the checkpoint, or the name of known weights: "torchvision://resnet50-v2".
        source: name of the convention ("torchvision", "detectron2", ..., "as stored"); None to recognise it.
        prefix: what stands before the network's names in the file: "backbone", "teacher"; None to find it.
        scope: path of the submodule of the model; "" for the whole model, None to find it.
        container: the key that the weights stand under in the file; None to find it.
        allow_missing: globs of model keys that may stay without a value or have another shape, with or without the
            scope before them: "linear.*".
        stem_adapt: what to do where the model takes another number of channels than the file's: "error", "repeat" (as
            timm does it), "mean" or "zero"; see `stem_adapt.adapt_channels`.
        swap_channels: swap RGB and BGR in the first convolution.
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
        allow_missing=allow_missing if isinstance(allow_missing, str) else tuple(allow_missing),
        stem_adapt=stem_adapt,
        swap_channels=swap_channels,
        check_preprocessing=check_preprocessing,
    )
    report = apply_checkpoint(model, read_checkpoint(path, container), options)
    logger.info("loaded a checkpoint\n%s", report)
    return report


def apply_checkpoint(model: nn.Module, checkpoint: Checkpoint, options: LoadOptions) -> LoadReport:
    """`load_checkpoint` for a checkpoint that was read already."""
    targets = targets_of(model)
    attempt = _check(model, targets, checkpoint, options)
    _copy(model, targets, attempt)
    return attempt.report


def check_checkpoint(model: nn.Module, checkpoint: Checkpoint, options: LoadOptions) -> Attempt:
    """What `apply_checkpoint` will do, or its error. Changes nothing."""
    return _check(model, targets_of(model), checkpoint, options)


def copy_checkpoint(model: nn.Module, attempt: Attempt) -> None:
    """Do what `check_checkpoint` found: one copy, straight into place. Then look whether it is there.

    The report gets to know what is not finite, as the model has it: a cast to half precision makes large numbers
    infinite.

    Raises:
        CheckpointMatchError: the model has something else than was written to it.
    """
    _copy(model, targets_of(model), attempt)


def _check(model: nn.Module, targets: dict[str, Tensor], checkpoint: Checkpoint, options: LoadOptions) -> Attempt:
    attempt = plan_checkpoint(
        {key: tuple(value.shape) for key, value in targets.items()},
        checkpoint,
        **options.reading,
    )
    report, values = attempt.report, attempt.values
    check_report(report, options.allow_missing)
    _check_shared(targets, values, report)
    check_traits(traits_of(model, report.scope), report, options.check_preprocessing)
    report.loaded = [_with_cast(item, values[item.model_key], targets[item.model_key]) for item in report.loaded]
    return attempt


def _copy(model: nn.Module, targets: dict[str, Tensor], attempt: Attempt) -> None:
    values, report = attempt.values, attempt.report
    sums: dict[torch.device, dict[str, Tensor]] = defaultdict(dict)
    with torch.no_grad():
        for key, value in values.items():
            target = local(targets[key])
            target.copy_(part(targets[key], value))
            if target.is_floating_point():  # summed while it is in the cache; looked at later, so that no GPU waits
                sums[target.device][key] = target.sum(dtype=torch.float32)
        report.not_finite = _not_finite(targets, sums)
        _verify(model, {key: values[key] for key in doubtful(model, targets, values)}, report)
    if report.not_finite:
        logger.warning("%s: NaN or infinite values in %s", report.path, shorten(report.not_finite))


def targets_of(model: nn.Module) -> dict[str, Tensor]:
    """Model key -> the tensor that a load writes to.

    Raises:
        ArgumentError: there is no memory to write to.
    """
    targets = {key: value for key, value in model.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}
    meta = [key for key, value in targets.items() if value.is_meta]
    if meta:
        raise ArgumentError(
            f"the model has no memory for its weights: {shorten(meta)} are on the meta device. "
            f"Give it some first: model.to_empty(device='cpu')."
        )
    return targets


def _check_shared(targets: dict[str, Tensor], values: dict[str, Tensor], report: LoadReport) -> None:
    """Refuse a file with different values for one tensor that the model has under several names."""
    first: dict[int, str] = {}
    for key, value in values.items():
        other = first.setdefault(id(targets[key]), key)
        if other != key and not _equal(value, values[other]):
            raise CheckpointMatchError(
                f"checkpoint {report.path!r} has different values for {other!r} and {key!r}, which are one tensor in "
                "the model. Build the model that the file is for, with a module of its own for each.",
                report,
            )


def doubtful(model: nn.Module, targets: dict[str, Tensor], keys: Iterable[str]) -> list[str]:
    """Those keys under which the model may have something else than was written.

    A state_dict hook may hand out a copy of what a module computes with, a tensor class of its own may do anything, and
    into memory that several tensors share the last one was written. A module's own, plain tensors are beyond doubt.
    """
    keys, modules = list(keys), list(model.modules())
    own = {id(value) for module in modules for value in (*module._parameters.values(), *module._buffers.values())}
    held = {key: local(targets[key]) for key in keys if id(targets[key]) in own}
    plain = {key: value for key, value in held.items() if type(value) in (Tensor, nn.Parameter)}
    memory = {key: value.untyped_storage().data_ptr() for key, value in plain.items() if value.numel()}
    written = Counter(memory.values())
    return [key for key in keys if key not in plain or written[memory.get(key, 0)] > 1]


def _verify(model: nn.Module, values: dict[str, Tensor], report: LoadReport) -> None:
    """Compare what the model has now with what was written to it."""
    current = model.state_dict() if values else {}
    # NaN is unequal to itself; that it is there has been reported.
    looked_at = {key: value for key, value in values.items() if key not in report.not_finite}
    refuse_wrong([key for key, value in looked_at.items() if not is_there(current[key], value)], report)


def is_there(found: Tensor, value: Tensor) -> bool:
    """Whether a tensor of the model is what was written to it, as far as this process holds it."""
    expected = part(found, value)
    return torch.equal(local(found), expected.to(device=found.device, dtype=found.dtype))


def refuse_wrong(wrong: list[str], report: LoadReport) -> None:
    """Raise where keys of the model hold something else than was written."""
    if wrong:
        raise CheckpointMatchError(
            f"after loading {report.path!r}, {len(wrong)} tensors of the model are not those of the file: "
            f"{shorten(wrong)}. The module changes what is written to it, or two names share one tensor.",
            report,
        )


def _equal(one: Tensor, other: Tensor) -> bool:
    # NaN equals itself here: what is not finite is reported, not refused.
    return one.shape == other.shape and torch.allclose(one.double(), other.double(), rtol=0, atol=0, equal_nan=True)


def _not_finite(targets: dict[str, Tensor], sums: dict[torch.device, dict[str, Tensor]]) -> dict[str, int]:
    """How many numbers are NaN or infinite, where there are any. A sum is finite unless one is, or it overflows."""
    doubted = {
        key
        for found in sums.values()
        for key, finite in zip(found, torch.isfinite(torch.stack(list(found.values()))).tolist(), strict=True)
        if not finite
    }
    counts = {key: int((~torch.isfinite(local(targets[key]))).sum()) for key in targets if key in doubted}
    return {key: count for key, count in counts.items() if count}


def _with_cast(item: Loaded, stored: Tensor, target: Tensor) -> Loaded:
    if stored.dtype == target.dtype:
        return item
    names = [str(dtype).removeprefix("torch.") for dtype in (stored.dtype, target.dtype)]
    return item._replace(cast=" -> ".join(names))
