"""A run that takes seconds: four images of 64 pixels, and a RetinaNet with frozen norms."""

from pathlib import Path

from train_detector.config import load_config

EPSILON = 1e-4
OVERRIDES = [
    "model.min_size=64",
    "model.max_size=64",
    "model.backbone.out_channels=64",
    # Statistics of a batch would depend on how many processes share it.
    "model.backbone.bottom_up.stem.norm=FrozenBN",
    "model.backbone.bottom_up.stages.norm=FrozenBN",
    "data.prepare.train=8",
    "data.prepare.test=3",
    "data.prepare.size=64",
    "data.total_batch_size=2",
    "optimizer.lr=3e-4",
    # With Adam's 1e-8 a gradient that is nothing but rounding makes a step as long as every other, and two runs that
    # differ in the order of their sums part. With this, it makes none.
    f"optimizer.eps={EPSILON}",
    "schedule.warmup=2",
    "train.steps=4",
    "train.checkpoint_every=2",
    "train.log_every=1",
    "train.device=cpu",
]


def overrides(folder: Path, name: str, *others: str) -> list[str]:
    """The overrides of a run in `folder / name`."""
    return [*OVERRIDES, f"data.folder={folder / 'scenes'}", f"train.output={folder / name}", *others]


def tiny(folder: Path, name: str, *others: str):
    """The config of such a run."""
    return load_config("detectors/retinanet_resnet18_fpn", overrides(folder, name, *others))
