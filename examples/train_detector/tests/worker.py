"""What torchrun starts in test_run.py: both engines, each from the beginning and from a checkpoint."""

import sys
from pathlib import Path

from tiny import tiny
from torch import distributed

from train_detector.train import train


def main(folder: Path) -> None:
    distributed.init_process_group("gloo")
    for kind in ("ddp", "fsdp2"):
        others = [f"train.parallel={kind}", "train.ema=0.9"]
        figures = train(tiny(folder, kind, *others))
        assert bool(figures) == (distributed.get_rank() == 0)
        train(tiny(folder, f"{kind}_resumed", *others), resume=True)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
