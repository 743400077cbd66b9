"""Everything that a run needs to go on where it was: written by the first process, received by all."""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)

from detrex_backbones.errors import ArgumentError, CheckpointFileError
from train_detector.files import save_whole
from train_detector.optim import AveragedWeights
from train_detector.parallel import Processes

__all__ = ["RunState", "latest"]

NAME = "step_{:07d}.pth"
KEPT = 2  # the newest checkpoints


@dataclass
class RunState:
    """A model, sharded or not, and what trains it.

    Random numbers and the place in the data are no part of it: both follow from the seed and the step. So do the
    learning rate and the warm-up.

    Args:
        model: as it is trained, wrapped or sharded.
        optimizer: its optimizer.
        scaler: of the losses for fp16; disabled otherwise.
        averages: the average of the weights, or None.
        config: the parts of the config that a run can't change on its way, as text.
        processes: who writes and who receives.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    averages: AveragedWeights | None
    config: str
    processes: Processes

    def save(self, folder: Path, step: int) -> None:
        """Write the state after `step` steps; all processes call it, the first one writes. Old ones are removed.

        Raises:
            CheckpointFileError: the disk is full, the folder read-only and so on.
        """
        self.processes.share_buffers(self.model)
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        model, optimizer = get_state_dict(self.model, self.optimizer, options=options)
        averages = {name: _whole(value) for name, value in self.averages.items()} if self.averages else {}
        if not self.processes.first:
            return
        content = {
            "step": step,
            "model": model,
            "optimizer": optimizer,
            "scaler": self.scaler.state_dict(),
            "averages": averages,
            "updates": self.averages.updates if self.averages else 0,
            "config": self.config,
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_whole(folder / NAME.format(step), content)
            for old in _all(folder)[:-KEPT]:
                old.unlink()
        except OSError as error:
            raise CheckpointFileError(
                f"the checkpoint of step {step} can't be written to {folder}: {error}."
            ) from error

    def restore(self, path: Path) -> int:
        """Take everything from a file, which only the first process reads; returns how many steps were done.

        Raises:
            CheckpointFileError: it can't be read, or is no checkpoint of a run.
            ArgumentError: the run was made with another config.
        """
        content: dict[str, Any] = self.processes.from_first(_read(path) if self.processes.first else None)
        _same_config(content["config"], self.config, path)
        set_state_dict(
            self.model,
            self.optimizer,
            model_state_dict=content["model"],
            optim_state_dict=content["optimizer"],
            options=StateDictOptions(full_state_dict=True),
        )
        if content["scaler"]:
            self.scaler.load_state_dict(content["scaler"])
        if self.averages:
            self.averages.updates = content["updates"]
            for name, value in self.averages.items():
                value.copy_(_spread(content["averages"][name].to(value.device), value))
        return int(content["step"])

    def weights(self) -> dict[str, Tensor]:
        """The model's weights, whole, on the CPU; all processes call it, the first one gets them."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights: dict[str, Any] = get_model_state_dict(self.model, options=options)
        return weights


def latest(folder: Path) -> Path | None:
    """The newest checkpoint of a run, None for none."""
    found = _all(folder)
    return found[-1] if found else None


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step_*.pth") if re.fullmatch(r"step_\d+\.pth", path.name))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not {"step", "model", "optimizer", "scaler", "averages", "updates", "config"} <= set(content):
            raise ValueError("it holds something else")
    except (OSError, RuntimeError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointFileError(
            f"{path} is no checkpoint that a run can go on from: {error}. Remove it to go on from the one before."
        ) from error
    return content  # type: ignore[no-any-return]


def _same_config(old: str, new: str, path: Path) -> None:
    before, now = old.splitlines(), new.splitlines()
    changed = [line for line in now if line not in before] or [line for line in before if line not in now]
    if before != now:
        shown = "; ".join(line.strip() for line in changed[:3])
        raise ArgumentError(
            f"{path} is of a run with another config, different in: {shown or 'the order'}. A run goes on with the "
            f"model, data, optimizer and schedule it began with. Give the same overrides, or another train.output."
        )


def _whole(value: Tensor) -> Tensor:
    full: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return full.detach().cpu().clone()


def _spread(value: Tensor, target: Any) -> Tensor:
    """A whole value, sharded as `target` is."""
    if not hasattr(target, "device_mesh"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, target.device_mesh, target.placements)
