"""One load by many processes: the first reads the file, the others receive it, a tensor at a time.

What is held in memory beyond the model: one tensor of the file on each process; the first process maps the file.
A model that is sharded (FSDP2, DTensor) gets its part of each tensor. Nothing is written before all processes have
agreed that the load is right; after that, only the death of a process can leave a part of the weights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from detrex_backbones.checkpoint.files import Checkpoint, load_values, open_checkpoint
from detrex_backbones.checkpoint.load import check_checkpoint, load_checkpoint, log_report
from detrex_backbones.checkpoint.match.plan import Attempt
from detrex_backbones.checkpoint.match.traits import traits_of
from detrex_backbones.checkpoint.options import LoadOptions
from detrex_backbones.checkpoint.place.dense import count_not_finite, doubtful, is_there, refuse_wrong, targets_of
from detrex_backbones.checkpoint.place.ranks import Ranks, several
from detrex_backbones.checkpoint.place.sharded import local, part, placement
from detrex_backbones.checkpoint.place.writable import check_writable
from detrex_backbones.checkpoint.read import as_lazy, load_tensors
from detrex_backbones.checkpoint.read.nested import put_in, take_out
from detrex_backbones.checkpoint.report import LoadReport
from detrex_backbones.errors import ArgumentError
from detrex_backbones.text import shorten

__all__ = ["TIMEOUT", "distribute_checkpoint", "load_checkpoint_distributed", "receive_nested"]

logger = logging.getLogger(__name__)

TIMEOUT = 600.0  # seconds; reading on the first process, a download included, is one wait of the others

Coming = list[tuple[str, torch.Size, torch.dtype]]  # model key, shape and dtype in the file


def load_checkpoint_distributed(
    model: nn.Module,
    path: str | Path,
    *,
    group: distributed.ProcessGroup | None = None,
    timeout: float = TIMEOUT,
    **options: Any,
) -> LoadReport:
    """`load_checkpoint` by all processes of a group together: only the first needs to be able to read the file.

    Every process of the group must make this call, with the same path, options and architecture. Where one process
    fails, all raise. Without torch.distributed, or in a group of one, this is `load_checkpoint`.

    Args:
        model: changed in place: an ordinary one, or sharded by FSDP2 (`fully_shard`) or as DTensors.
        path: as of `load_checkpoint`; only the first process of the group opens it.
        group: the processes, a group of gloo; None for all.
        timeout: seconds that a process waits for the others at the most, while the first reads too.
        **options: as of `load_checkpoint`.

    Returns:
        What went where; the same on all processes.

    Raises:
        RankError: the processes disagree about the path, the options or the model, or one died or didn't come. If it
            died while tensors were being sent, a part of the weights may have been written.
        CheckpointError, ArgumentError: as of `load_checkpoint`, on all processes. The models keep their weights.
    """
    if not several(group):
        return load_checkpoint(model, path, **options)
    with Ranks(group, timeout) as ranks:
        chosen = ranks.together(lambda: LoadOptions.of(options))
        ranks.agree("the load", {"path": str(path), "options": repr(chosen)}, "Give every process the same.")
        with ExitStack() as opened:
            checkpoint = ranks.together(
                lambda: opened.enter_context(open_checkpoint(path, chosen.container)) if ranks.first else None
            )
            report = distribute_checkpoint(ranks, model, checkpoint, chosen)
    log_report(report)
    return report


def distribute_checkpoint(
    ranks: Ranks,
    model: nn.Module,
    checkpoint: Checkpoint | None,
    options: LoadOptions,
    beside: Callable[[LoadReport], object] = lambda report: None,
) -> LoadReport:
    """Load what the first process has read into the models of all.

    Args:
        ranks: who takes part.
        model: of this process.
        checkpoint: on the first process; None on the others.
        options: of the load.
        beside: what every process does once it's known that the file fits and before weights are written; it may fail.
    """
    targets = ranks.together(lambda: targets_of(model))
    ranks.together(lambda: check_writable({key: local(target) for key, target in targets.items()}))
    ranks.agree("the model", _table(targets), "Build the same model on every process, and shard it the same way.")
    attempt = ranks.together(lambda: _checked(model, checkpoint, options) if checkpoint else None)
    # All of them are there, and their checksums right, before the first is sent.
    values = ranks.together(
        lambda: load_values(checkpoint, attempt.values, owned=False) if checkpoint and attempt else {}
    )
    announced = [(key, torch.Size(value.shape), value.dtype) for key, value in values.items()]
    report, coming = ranks.send((attempt.report, announced) if attempt else None)
    traits = {name: repr(value) for name, value in traits_of(model, report.scope).items()}
    ranks.agree("what the model does", traits, "Build the models of all processes from one config.")
    ranks.together(lambda: beside(report))
    not_finite: dict[str, int] = {}

    def write(key: str, value: Tensor) -> None:
        local(targets[key]).copy_(part(targets[key], value))
        if ranks.first and (count := _not_finite(value, targets[key].dtype)):
            not_finite[key] = count

    with torch.no_grad():
        _each(ranks, coming, values, write)
        _verify(ranks, model, targets, coming, values, report)
    report.not_finite = ranks.send(not_finite)
    if report.not_finite:
        logger.warning("%s: NaN or infinite values in %s", report.path, shorten(report.not_finite))
    return report  # type: ignore[no-any-return]


def _checked(model: nn.Module, checkpoint: Checkpoint, options: LoadOptions) -> Attempt:
    """What a load will do, where it's done by copying alone."""
    attempt = check_checkpoint(model, checkpoint, options)
    beyond = [task.path.rstrip(".") or "the model" for task in attempt.tasks if task.beyond]
    if beyond:
        raise ArgumentError(
            f"{shorten(beyond)}: its loading code does more than to give tensors their values, which only a process "
            f"that reads for itself can let it do: load_checkpoint, or DetectionCheckpointer(..., read_once=False)."
        )
    return attempt


def receive_nested(ranks: Ranks, value: dict[str, Any], keep: Callable[[str, Tensor], Tensor]) -> dict[str, Any]:
    """What the first process gives, on all: mappings and lists with tensors in them, which come one at a time.

    Args:
        ranks: who takes part.
        value: on the first process.
        keep: what is kept of a tensor, by its dotted path; memory of its own.
    """
    structure, stored = ranks.together(lambda: take_out(value))
    tensors = ranks.together(
        lambda: dict(zip(stored, load_tensors(map(as_lazy, stored.values()), owned=False), strict=True))
    )
    announced = [(name, torch.Size(tensor.shape), tensor.dtype) for name, tensor in tensors.items()]
    structure, coming = ranks.send((structure, announced))
    kept: dict[str, Tensor] = {}
    _each(ranks, coming, tensors, lambda name, tensor: kept.update({name: keep(name, tensor)}))
    return put_in(structure, kept)  # type: ignore[no-any-return]


def _table(targets: dict[str, Tensor]) -> dict[str, str]:
    """What has to be the same on all processes, as text."""
    kinds = {key: (tuple(value.shape), str(value.dtype), placement(value)) for key, value in targets.items()}
    return {key: " ".join(filter(None, map(str, kind))) for key, kind in kinds.items()}


def _each(ranks: Ranks, coming: Coming, values: Mapping[str, Tensor], use: Callable[[str, Tensor], None]) -> None:
    """Give every process each of the first one's values in turn, in memory that the next one gets too."""
    # One buffer for all of them: what is freed between messages isn't given back at once.
    sizes = [shape.numel() * dtype.itemsize for _, shape, dtype in coming]
    buffer = torch.empty(0 if ranks.first else max(sizes, default=0), dtype=torch.uint8)
    for (key, shape, dtype), size in zip(coming, sizes, strict=True):
        value = values[key].contiguous() if ranks.first else buffer[:size].view(dtype).reshape(shape)
        use(key, ranks.send_tensor(value))


def _verify(
    ranks: Ranks,
    model: nn.Module,
    targets: dict[str, Tensor],
    coming: Coming,
    values: Mapping[str, Tensor],
    report: LoadReport,
) -> None:
    """Send once more what a model may have otherwise than it was written, and compare; see `doubtful`."""
    doubted = set().union(*ranks.gather(doubtful(model, targets, {key: local(targets[key]) for key, *_ in coming})))
    current = model.state_dict() if doubted else {}
    wrong: list[str] = []

    def compare(key: str, value: Tensor) -> None:
        # NaN is unequal to itself; that it is there is reported.
        if not is_there(current[key], value) and not _not_finite(value, current[key].dtype):
            wrong.append(key)

    _each(ranks, [item for item in coming if item[0] in doubted], values, compare)
    ranks.together(lambda: refuse_wrong(wrong, report))


def _not_finite(value: Tensor, dtype: torch.dtype) -> int:
    """How many numbers are NaN or infinite once they are cast. A sum is finite unless one is, or it overflows."""
    if not dtype.is_floating_point:
        return 0
    cast = value.to(dtype)
    return 0 if bool(torch.isfinite(cast.sum(dtype=torch.float32))) else count_not_finite(cast)
