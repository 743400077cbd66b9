"""fvcore's Checkpointer with this library's loader: what a training loop saves, resumes and starts from."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from fvcore.common.checkpoint import Checkpointer
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from detrex_backbones.atomic_write import write_whole
from detrex_backbones.checkpoint.files import Checkpoint, load_values, open_checkpoint
from detrex_backbones.checkpoint.load import check_checkpoint, copy_checkpoint, log_report
from detrex_backbones.checkpoint.names.numbers import number_in
from detrex_backbones.checkpoint.options import LoadOptions
from detrex_backbones.checkpoint.place.distributed import TIMEOUT, distribute_checkpoint, receive_nested
from detrex_backbones.checkpoint.place.distributed_folder import write_folder, writing
from detrex_backbones.checkpoint.place.ranks import Ranks, several
from detrex_backbones.checkpoint.place.sharded import is_sharded, like
from detrex_backbones.checkpoint.read.nested import put_in, take_out
from detrex_backbones.checkpoint.report import LoadReport
from detrex_backbones.errors import ArgumentError, CheckpointFileError, CheckpointMatchError, closest
from detrex_backbones.kinds import kinds_checked

__all__ = ["DetectionCheckpointer"]

logger = logging.getLogger(__name__)

MODEL = "model"  # the key of the model's weights in what is saved


@kinds_checked
class DetectionCheckpointer(Checkpointer):  # type: ignore[misc]
    """Saves and loads a model with whatever else training needs. The interface is detectron2's, built on fvcore's.

    Args:
        model: loaded in place; the inner module of a DistributedDataParallel or DataParallel.
        save_dir: folder of the checkpoints; "" saves nothing.
        save_to_disk: whether this process writes; None: only the first of a distributed run does. A sharded model
            (FSDP2, DTensor) is written by all processes, each its part, whatever this is.
        read_once: whether all processes load together: the first reads, the others receive, and need not see the file
            or `save_dir`. Then every process must call `load` and `resume_or_load`. None: where the model is sharded.
            False: each process reads for itself.
        **checkpointables: objects with `state_dict` and `load_state_dict`: `optimizer=optimizer`.

    Attributes:
        report: the `LoadReport` of the last load; None before the first.
    """

    report: LoadReport | None = None

    def __init__(
        self,
        model: nn.Module,
        save_dir: str | Path = "",
        *,
        save_to_disk: bool | None = None,
        read_once: bool | None = None,
        **checkpointables: Any,
    ) -> None:
        if save_to_disk is None:
            save_to_disk = not distributed.is_initialized() or distributed.get_rank() == 0
        super().__init__(model, str(save_dir), save_to_disk=save_to_disk, **checkpointables)
        self.read_once = read_once

    def load(self, path: str | Path, checkpointables: list[str] | None = None, **options: Any) -> dict[str, Any]:
        """Load the model and, from one of our own checkpoints, what else was saved with it.

        Args:
            path: of the checkpoint; "" leaves the model as it is.
            checkpointables: names of the objects to load; None for all that the file has.
            **options: as of `load_checkpoint`: source, prefix, scope, container, allow_missing and so on.

        Returns:
            What else the file holds, such as the iteration.

        Raises:
            CheckpointFileError: the file can't be read.
            CheckpointMatchError: it doesn't fit the model or one of the objects. The model keeps its weights.
            ArgumentError: a name in `checkpointables` that this checkpointer doesn't have, or an unknown option.
        """
        if self._together:
            return self._load_together(path, checkpointables, options)
        names, chosen = self._checked(checkpointables, options)
        if not path:
            logger.info("no checkpoint given: the model keeps its weights")
            return {}
        with open_checkpoint(path, chosen.container) as opened:
            checkpoint = self._of_model(opened)
            attempt = check_checkpoint(self.model, checkpoint, chosen)
            structure, stored = take_out(attempt.extra)
            tensors = load_values(checkpoint, stored, owned=False)  # `_kept` makes what is kept its own
            rest = put_in(structure, {name: self._kept(name, value) for name, value in tensors.items()})
            copy_checkpoint(self.model, checkpoint, attempt, lambda: self._load_rest(rest, names, attempt.report))
        self._loaded(attempt.report)
        return rest  # type: ignore[no-any-return]

    def _load_together(
        self, path: str | Path, checkpointables: list[str] | None, options: dict[str, Any]
    ) -> dict[str, Any]:
        """`load` by all processes, of what the first reads, a tensor at a time."""
        with Ranks(None, TIMEOUT) as ranks:
            names, chosen = ranks.together(lambda: self._checked(checkpointables, options))
            asked = {"path": str(path), "options": repr(chosen), "checkpointables": repr(names)}
            ranks.agree("the load", asked, "Give every process the same.")
            if not path:
                logger.info("no checkpoint given: the model keeps its weights")
                return {}
            with ExitStack() as opened:
                checkpoint = ranks.together(
                    lambda: (
                        self._of_model(opened.enter_context(open_checkpoint(path, chosen.container)))
                        if ranks.first
                        else None
                    )
                )
                rest = receive_nested(ranks, checkpoint.extra if checkpoint else {}, self._kept)
                report = distribute_checkpoint(
                    ranks, self.model, checkpoint, chosen, lambda report: self._load_rest(rest, names, report)
                )
        self._loaded(report)
        return rest

    def _of_model(self, checkpoint: Checkpoint) -> Checkpoint:
        """The weights in a file without those that an object of this checkpointer keeps, such as averages."""
        each = [
            weights
            for weights in (checkpoint, *checkpoint.others)
            if weights.container.partition(".")[0] not in self.checkpointables
        ]
        return replace(each[0], others=tuple(each[1:])) if each else checkpoint

    @property
    def _together(self) -> bool:
        return several() and (self._sharded if self.read_once is None else self.read_once)

    @property
    def _sharded(self) -> bool:
        return any(map(is_sharded, self.model.state_dict().values()))

    def _checked(self, checkpointables: list[str] | None, options: dict[str, Any]) -> tuple[list[str], LoadOptions]:
        names = list(self.checkpointables if checkpointables is None else checkpointables)
        for name in names:
            if name not in self.checkpointables:
                raise ArgumentError(
                    f"checkpointables={names!r}: there is no {name!r}. "
                    f"Allowed: {', '.join(self.checkpointables) or '-'}.{closest(name, self.checkpointables)}"
                )
        return names, LoadOptions.of(options)

    def _kept(self, name: str, value: Tensor) -> Tensor:
        """A tensor beside the model's as it is to be kept: an optimiser's like the parameter that it is for."""
        owner, *steps = name.split(".")
        optimizer = self.checkpointables.get(owner)
        if isinstance(optimizer, Optimizer) and len(steps) == 3 and steps[0] == "state":
            params = [param for group in optimizer.param_groups for param in group["params"]]
            index = number_in(steps[1])
            param = params[index] if index is not None and index < len(params) else value
            return like(param if param.shape == value.shape else value, value)
        return value.clone()

    def _load_rest(self, rest: dict[str, Any], names: list[str], report: LoadReport) -> Callable[[], object]:
        """Load what else was saved; all of it, or none. Gives what takes it back."""
        found = [name for name in names if name in rest]
        before = {name: copy.deepcopy(self.checkpointables[name].state_dict()) for name in found}

        def take_back() -> None:
            for name in found:
                self.checkpointables[name].load_state_dict(before[name])

        try:
            for name in found:
                logger.info("loading %s from %s", name, report.path)
                self._load_checkpointable(name, rest[name], report)
        except BaseException:
            take_back()
            raise
        for name in found:
            del rest[name]
        return take_back

    def _loaded(self, report: LoadReport) -> None:
        self.report = report
        log_report(report)

    def _load_checkpointable(self, name: str, state: Any, report: LoadReport) -> None:
        try:
            self.checkpointables[name].load_state_dict(state)
        except Exception as error:  # whatever the object finds wrong
            raise CheckpointMatchError(
                f"checkpoint {report.path!r}: its {name!r} doesn't fit the one of this run: {error} "
                f"Load the others alone: checkpointables=[...].",
                report,
            ) from error

    def resume_or_load(self, path: str | Path, *, resume: bool = True) -> dict[str, Any]:
        """Continue from the last checkpoint of `save_dir`, all of it, or start from the weights of `path`.

        Args:
            path: weights to start from; "" for none.
            resume: whether to continue where there is something to continue from.

        Raises:
            CheckpointFileError: there is something to continue from, but it can't be read; and as `load`.
        """
        last = self._last() if resume else ""
        return self.load(last, container=MODEL) if last else self.load(path, checkpointables=[])

    def _last(self) -> str:
        """The last checkpoint, as the first process sees it where it reads for all; "" where there is none."""
        if not self._together:
            return self._marked()
        with Ranks(None, TIMEOUT) as ranks:
            return ranks.send(ranks.together(lambda: self._marked() if ranks.first else ""))  # type: ignore[no-any-return]

    def _marked(self) -> str:
        if not self.has_checkpoint():
            return ""
        last: str = self.get_checkpoint_file()
        if not last:  # fvcore takes a mark that can't be read for none, and the run would start anew
            mark = str(Path(self.save_dir) / "last_checkpoint")
            raise CheckpointFileError(
                f"{mark!r}, which names the last checkpoint, can't be read. "
                f"Make it readable, or start anew: resume=False."
            )
        return last

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `save_dir/name.pth` and mark it as the last one. A crash leaves the one before it as it was.

        A sharded model is written by all processes as `save_dir/name`, a folder of torch.distributed.checkpoint: all
        must call this, and see the folder.

        Args:
            name: of the file, without folder and extension.
            **kwargs: what else to keep: `iteration=100`.

        Raises:
            CheckpointFileError: the folder can't be written to, or the disk is full.
            RankError: the processes save different things, or lost each other.
            ArgumentError: a name with a folder in it.
        """
        if not name or Path(name).name != name:
            raise ArgumentError(f"name={name!r} is no name of a file in save_dir={self.save_dir!r}.")
        sharded = self._sharded
        if not self.save_dir or not (self.save_to_disk or sharded):
            return
        data = {MODEL: self.model.state_dict(), **kwargs}
        data |= {key: value.state_dict() for key, value in self.checkpointables.items()}
        if sharded:
            self._save_together(Path(self.save_dir) / name, data)
            return
        file = Path(self.save_dir) / f"{name}.pth"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, lambda opened: torch.save(data, opened))
            write_whole(file.parent / "last_checkpoint", lambda opened: opened.write(file.name.encode()))
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            raise CheckpointFileError(
                f"checkpoint {str(file)!r} can't be written: {error}. The last one that is whole is still marked."
            ) from error
        logger.info("saved %s", file)

    def _save_together(self, folder: Path, data: dict[str, Any]) -> None:
        def mark() -> None:
            with writing(folder):
                write_whole(folder.parent / "last_checkpoint", lambda opened: opened.write(folder.name.encode()))

        with Ranks(None, TIMEOUT) as ranks:
            write_folder(ranks, folder, data)
            ranks.together(lambda: mark() if ranks.first else None)
        logger.info("saved %s", folder)
