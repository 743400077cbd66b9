"""Modules that load by code of their own, as one step that can be taken back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from detrex_backbones.checkpoint.match.loading_code import Snapshot, Task, run_task

__all__ = ["ByThemselves"]


class ByThemselves:
    """The modules of a model that load by themselves what a plan found them to take.

    Args:
        model: whose modules these are.
        tasks: one for each.
    """

    def __init__(self, model: nn.Module, tasks: Sequence[Task] = ()) -> None:
        self._model, self._tasks = model, tasks
        self._before: list[Snapshot] = []
        self.gives = {key for task in tasks for key in task.gives}
        self.unchanged = [key for task in tasks for key, as_stored in task.gives.items() if as_stored]

    def load(self) -> None:
        """Have them load."""
        for task in self._tasks:
            module = self._model.get_submodule(task.path.rstrip("."))
            self._before.append(Snapshot(module, values=True))
            run_task(module, task)

    def take_back(self) -> None:
        """Make them what they were."""
        while self._before:
            self._before.pop().restore()

    def not_finite(self, count: Callable[[Tensor], int]) -> dict[str, int]:
        """Model key -> how many of its numbers are NaN or infinite."""
        now = self._model.state_dict() if self.gives else {}
        counts = {key: count(now[key]) for key in self.gives if now[key].is_floating_point()}
        return {key: number for key, number in counts.items() if number}
