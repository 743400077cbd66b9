"""What a run says while it goes on: a progress bar, a line of JSON a step, and TensorBoard's curves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

__all__ = ["RunLog", "read_metrics"]

METRICS = "metrics.jsonl"
WIDTH = 80


class RunLog:
    """The log of the first process; others have none.

    A terminal gets a bar with rate and remaining time, a file or a pipe a line every `every` steps.

    Args:
        folder: of the run; gets metrics.jsonl and TensorBoard's files in tensorboard/.
        start: the first step; what an earlier run logged from there on is taken back.
        steps: of the whole run.
        every: steps between two points of TensorBoard's curves.
    """

    def __init__(self, folder: Path, start: int, steps: int, every: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.every, self.steps = every, steps
        kept = [entry for entry in read_metrics(folder) if entry["step"] < start]
        self._file: IO[str] = (folder / METRICS).open("w", encoding="utf-8")
        self._file.writelines(json.dumps(entry) + "\n" for entry in kept)
        self._file.flush()
        self._board: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=start)
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=steps,
            initial=start,
            desc="train",
            unit="step",
            ncols=WIDTH - 1,
            file=sys.stderr if self._terminal else _Nowhere(),
            mininterval=0.2,
        )

    def step(self, entry: dict[str, Any]) -> None:
        """One step: `step`, `loss`, `lr` and the parts of the loss."""
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        done = entry["step"] + 1
        if done % self.every == 0 or done == self.steps:
            for key, value in entry.items():
                if key != "step":
                    self._board.add_scalar(f"train/{key}", value, entry["step"])
        self._bar.set_postfix_str(f"loss {entry['loss']:.3f}", refresh=False)
        self._bar.update()
        if not self._terminal and (done % self.every == 0 or done == self.steps):
            rate = self._bar.format_dict["rate"] or 0.0
            left = tqdm.format_interval((self.steps - done) / rate) if rate else "?"
            text = f"step {done}/{self.steps}  loss {entry['loss']:.3f}  lr {entry['lr']:.1e}"
            self.say(f"{text}  {rate:.2f} step/s  {left} left")

    def evaluation(self, done: int, figures: dict[str, Any]) -> None:
        """Figures after `done` steps."""
        for key, value in figures.items():
            if isinstance(value, float):
                self._board.add_scalar(f"test/{key}", value, done)

    def say(self, text: str) -> None:
        """A line that doesn't break the bar."""
        if self._terminal:
            self._bar.write(text, file=sys.stderr)
        else:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def close(self) -> None:
        """Write what is left."""
        self._bar.close()
        self._file.close()
        self._board.close()


class _Nowhere:
    """Where the bar goes when nobody looks."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """What a run has logged, a dict a step; a line that a kill cut off is left out."""
    path = folder / METRICS
    if not path.is_file():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries
