"""Values into the tensors of a model: everything is checked and in memory before the first is written."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from detrex_backbones.checkpoint.interrupts import interrupts_wait
from detrex_backbones.checkpoint.place.by_themselves import ByThemselves
from detrex_backbones.checkpoint.place.sharded import local, part
from detrex_backbones.checkpoint.place.writable import check_writable, is_plain, why_not_cast
from detrex_backbones.checkpoint.report import LoadReport
from detrex_backbones.errors import ArgumentError, CheckpointMatchError
from detrex_backbones.text import counted, shorten

__all__ = ["check_casts", "count_not_finite", "doubtful", "is_there", "place_values", "refuse_wrong", "targets_of"]

logger = logging.getLogger(__name__)

# What quantised files call the factor of a module's codes: torch's and compressed-tensors', ComfyUI's, bitsandbytes'.
SCALE = re.compile(r"(^|_)(scales?|absmax)($|_)|^SCB$")
SMALL = 1 << 12  # numbers; smaller tensors are summed together


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


def check_casts(stored: Mapping[str, torch.dtype], targets: Mapping[str, Tensor], report: LoadReport) -> None:
    """Refuse values that a cast to the model's dtype would make into something else.

    Raises:
        CheckpointMatchError: with the keys and both dtypes.
    """
    found: dict[tuple[torch.dtype, torch.dtype], list[str]] = defaultdict(list)
    for key, dtype in stored.items():
        if why_not_cast(dtype, targets[key].dtype):
            found[dtype, targets[key].dtype].append(key)
    for (dtype, wanted), keys in found.items():
        raise CheckpointMatchError(
            f"checkpoint {report.path!r} has {dtype} where the model has {wanted}, and {why_not_cast(dtype, wanted)}: "
            f"{shorten(keys)}. Save the file with the model's dtypes, or build the model with the file's.",
            report,
        )
    codes = _codes(stored, targets, report)
    if codes:
        raise CheckpointMatchError(
            f"checkpoint {report.path!r} has codes of a quantised network, with their scales beside them, where the "
            f"model has weights: {shorten(codes)}. Save the file with the weights multiplied out.",
            report,
        )


def _codes(stored: Mapping[str, torch.dtype], targets: Mapping[str, Tensor], report: LoadReport) -> list[str]:
    """Keys of 8 bits for weights of more, that have a scale beside them in the file, even one that may be left."""
    scaled = {key.rpartition(".")[0] for key in report.left_over if SCALE.search(key.rpartition(".")[2])}
    return [
        entry.checkpoint_key
        for entry in report.loaded
        if entry.checkpoint_key.rpartition(".")[0] in scaled
        and stored[entry.model_key].itemsize == 1 < targets[entry.model_key].element_size()
        and targets[entry.model_key].is_floating_point()
    ]


def place_values(
    model: nn.Module,
    targets: Mapping[str, Tensor],
    values: Mapping[str, Tensor],
    report: LoadReport,
    beside: Callable[[], Callable[[], object]] = lambda: lambda: None,
    by_themselves: ByThemselves | None = None,
) -> None:
    """Copy values into a model, all or none.

    Plain tensors come last: nothing can fail there, so an interrupt waits until all are written. Where code of others
    runs (tensor classes, hooks of `state_dict`), the old values are kept until it's seen that the new ones are there.

    Args:
        model: whose tensors these are.
        targets: model key -> tensor, see `targets_of`.
        values: model key -> value, in memory.
        report: gets to know what isn't finite, as the model has it.
        beside: changes what changes with the model (the optimiser), or fails; gives what takes it back.
        by_themselves: the modules that load their values by code of their own, before all others get theirs.

    Raises:
        CheckpointMatchError: the model has something else than was written to it. It has its old values again.
        ArgumentError: a tensor that can't be written to.
    """
    modules = by_themselves or ByThemselves(model)
    held = {key: local(targets[key]) for key in values if not is_lazy(targets[key])}
    check_writable(held)
    held = {key: target for key, target in held.items() if key not in modules.gives}
    doubted = doubtful(model, targets, held)
    fragile = [key for key, target in held.items() if not is_plain(target)]
    kept = {key: held[key].detach().clone() for key in (held if doubted else fragile)}
    plain = [key for key, target in held.items() if is_plain(target)]
    sums: dict[torch.device, dict[str, Tensor]] = defaultdict(dict)
    small: dict[tuple[torch.device, torch.dtype], list[str]] = defaultdict(list)

    def write(key: str) -> None:
        target = held[key]
        target.copy_(part(targets[key], values[key]))
        if not target.is_floating_point():
            return
        if target.numel() < SMALL:
            small[target.device, target.dtype].append(key)
        else:  # summed while it is in the cache; looked at later, so that no GPU waits
            sums[target.device][key] = _sum_of(target)

    with interrupts_wait(), torch.no_grad():
        take_back = beside()
        try:
            modules.load()
            report.not_finite = modules.not_finite(_count_where_any)
            _verify(model, {key: values[key] for key in modules.unchanged}, report)
            for key in fragile:
                write(key)
            interrupted = _write_all(plain, write)
            report.not_finite |= _not_finite(held, sums, small.values())
            _verify(model, {key: values[key] for key in doubted}, report)
        except BaseException:
            for key, value in kept.items():
                held[key].copy_(value)
            modules.take_back()
            take_back()
            raise
    if interrupted is not None:
        raise interrupted
    if report.not_finite:
        logger.warning("%s: NaN or infinite values in %s", report.path, shorten(report.not_finite))


def _write_all(keys: Iterable[str], write: Callable[[str], None]) -> BaseException | None:
    """Write plain tensors. What interrupts it is given back, when all have their new values."""
    interrupted: BaseException | None = None
    for key in keys:
        try:
            write(key)
        except BaseException as error:
            if interrupted is not None:
                raise
            interrupted = error
            write(key)
    return interrupted


def doubtful(model: nn.Module, targets: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> list[str]:
    """Those keys under which the model may have something else than was written.

    A state_dict hook may hand out a copy of what a module computes with, a tensor class of its own may do anything, and
    into memory that several tensors share the last one was written. A module's own, plain tensors are beyond doubt.

    Args:
        model: as it is before it is written to.
        targets: model key -> its tensor.
        held: those that are written to, as far as this process holds them.
    """
    modules = list(model.modules())
    own = {id(value) for module in modules for value in (*module._parameters.values(), *module._buffers.values())}
    plain = {key: value for key, value in held.items() if id(targets[key]) in own and is_plain(value)}
    memory = {key: value.untyped_storage().data_ptr() for key, value in plain.items() if value.numel()}
    written = Counter(memory.values())
    return [key for key in held if key not in plain or written[memory.get(key, 0)] > 1]


def _verify(model: nn.Module, values: Mapping[str, Tensor], report: LoadReport) -> None:
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
            f"after loading {report.path!r}, the model has other values than the file in "
            f"{counted(len(wrong), 'tensor')}: {shorten(wrong)}. "
            f"The module changes what is written to it, or two names share one tensor.",
            report,
        )


def _sum_of(value: Tensor) -> Tensor:
    """A number that isn't finite where one of the tensor's isn't. The sum of squares is the fastest of them."""
    if value.dtype is torch.float32 and value.is_contiguous():
        flat = value.detach().view(-1)
        return torch.dot(flat, flat)
    return value.sum(dtype=torch.float32)


def _not_finite(
    held: Mapping[str, Tensor], sums: dict[torch.device, dict[str, Tensor]], small: Iterable[list[str]]
) -> dict[str, int]:
    """How many numbers are NaN or infinite, where there are any. A sum is finite unless one is, or it overflows."""
    for keys in small:  # all at once, and each of them where one isn't finite
        values = [held[key].flatten() for key in keys]
        if not bool(torch.isfinite(torch.cat(values).sum(dtype=torch.float32))):
            sums[values[0].device] |= {
                key: value.sum(dtype=torch.float32) for key, value in zip(keys, values, strict=True)
            }
    doubted = {
        key
        for found in sums.values()
        for key, finite in zip(found, torch.isfinite(torch.stack(list(found.values()))).tolist(), strict=True)
        if not finite
    }
    counts = {key: count_not_finite(value) for key, value in held.items() if key in doubted}
    return {key: count for key, count in counts.items() if count}


def _count_where_any(tensor: Tensor) -> int:
    """The same as `count_not_finite`, at once where all are finite. Their sum is, then, unless it overflows."""
    return 0 if bool(torch.isfinite(_sum_of(tensor))) else count_not_finite(tensor)


def count_not_finite(tensor: Tensor) -> int:
    """How many numbers of a tensor are NaN or infinite."""
    wide = tensor.float() if tensor.dtype.itemsize == 1 else tensor  # torch doesn't ask each kind of float8
    return int((~torch.isfinite(wide)).sum())
