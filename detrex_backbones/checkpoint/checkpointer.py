"""fvcore's Checkpointer with this library's loader: what a training loop saves, resumes and starts from."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import torch
from fvcore.common.checkpoint import Checkpointer
from torch import distributed, nn

from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.checkpoint.load import LoadOptions, check_checkpoint, copy_checkpoint
from detrex_backbones.checkpoint.report import LoadReport
from detrex_backbones.errors import ArgumentError, CheckpointFileError, CheckpointMatchError, closest
from detrex_backbones.whole_file import write_whole

__all__ = ["DetectionCheckpointer"]

logger = logging.getLogger(__name__)


class DetectionCheckpointer(Checkpointer):  # type: ignore[misc]
    """Saves and loads a model with whatever else training needs. The interface is detectron2's, built on fvcore's.

    Args:
        model: loaded in place; the inner module of a DistributedDataParallel or DataParallel.
        save_dir: folder of the checkpoints; "" saves nothing.
        save_to_disk: whether this process writes; None: only the first of a distributed run does.
        **checkpointables: objects with `state_dict` and `load_state_dict`: `optimizer=optimizer`.

    Attributes:
        report: the `LoadReport` of the last load; None before the first.
    """

    report: LoadReport | None = None

    def __init__(
        self, model: nn.Module, save_dir: str | Path = "", *, save_to_disk: bool | None = None, **checkpointables: Any
    ) -> None:
        if save_to_disk is None:
            save_to_disk = not distributed.is_initialized() or distributed.get_rank() == 0
        super().__init__(model, str(save_dir), save_to_disk=save_to_disk, **checkpointables)

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
        names = list(self.checkpointables if checkpointables is None else checkpointables)
        for name in names:
            if name not in self.checkpointables:
                raise ArgumentError(
                    f"checkpointables={names!r}: there is no {name!r}. "
                    f"Allowed: {', '.join(self.checkpointables) or '-'}.{closest(name, self.checkpointables)}"
                )
        if not path:
            logger.info("no checkpoint given: the model keeps its weights")
            return {}
        chosen = LoadOptions.of(options)
        checkpoint = read_checkpoint(path, chosen.container)
        attempt = check_checkpoint(self.model, checkpoint, chosen)
        # Copied, since optimisers keep the tensors that they are given, and these are mapped from the file.
        rest = copy.deepcopy(checkpoint.extra)
        for name in names:
            if name in rest:
                logger.info("loading %s from %s", name, path)
                self._load_checkpointable(name, rest.pop(name), attempt.report)
        copy_checkpoint(self.model, attempt)
        self.report = attempt.report
        logger.info("loaded a checkpoint\n%s", self.report)
        return rest

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
        if resume and self.has_checkpoint():
            last = self.get_checkpoint_file()
            if not last:  # fvcore takes a mark that can't be read for none, and the run would start anew
                mark = str(Path(self.save_dir) / "last_checkpoint")
                raise CheckpointFileError(
                    f"{mark!r}, which names the last checkpoint, can't be read. "
                    f"Make it readable, or start anew: resume=False."
                )
            return self.load(last)
        return self.load(path, checkpointables=[])

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `save_dir/name.pth` and mark it as the last one. A crash leaves the one before it as it was.

        Args:
            name: of the file, without folder and extension.
            **kwargs: what else to keep: `iteration=100`.

        Raises:
            CheckpointFileError: the folder can't be written to, or the disk is full.
            ArgumentError: a name with a folder in it.
        """
        if not name or Path(name).name != name:
            raise ArgumentError(f"name={name!r} is no name of a file in save_dir={self.save_dir!r}.")
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict(), **kwargs}
        data |= {key: value.state_dict() for key, value in self.checkpointables.items()}
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
