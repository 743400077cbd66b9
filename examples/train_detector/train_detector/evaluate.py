"""Average precision of a detector, as COCO counts it, and its table."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from train_detector.coco import CocoDetection, collate
from train_detector.parallel import Processes

__all__ = ["ap_table", "average_precision", "detect", "find_detections"]

Detection = dict[str, Any]
# Place in COCOeval's stats -> what it is.
FIGURES = {"AP": 0, "AP50": 1, "AP75": 2, "AP small": 3, "AP medium": 4, "AP large": 5, "AR": 8}
WIDTH = 80


@torch.no_grad()
def detect(model: nn.Module, images: Sequence[Tensor], processes: Processes) -> list[dict[str, Tensor]]:
    """What the model finds in images (3, H, W), RGB, 0 to 1: `boxes`, `labels` and `scores` of each, on the CPU.

    The model is in evaluation mode afterwards.
    """
    model.eval()
    found = model([image.to(processes.device) for image in images])
    return [{key: value.float().cpu() for key, value in one.items()} for one in found]


def find_detections(model: nn.Module, data: CocoDetection, batch: int, processes: Processes) -> list[Detection]:
    """What the model finds in all images, in COCO's result format, the images shared among the processes.

    All processes get as many batches, as a sharded model needs it: the last images are looked at twice then.
    """
    own: dict[int, list[Detection]] = {}  # by the image: one that is looked at twice counts once
    share = math.ceil(len(data) / processes.world)
    indices = [min(index, len(data) - 1) for index in range(processes.rank * share, (processes.rank + 1) * share)]
    for start in range(0, share, batch):
        images, targets = collate([data[index] for index in indices[start : start + batch]])
        for target, found in zip(targets, detect(model, images, processes), strict=True):
            own[target["image_id"]] = list(_as_coco(found, target["image_id"], data.category_ids))
    every = {image_id: found for part in processes.gather(own) for image_id, found in part.items()}
    return [one for found in every.values() for one in found]


def _as_coco(found: dict[str, Tensor], image_id: int, category_ids: Sequence[int]) -> Iterator[Detection]:
    boxes = found["boxes"].clone()
    boxes[:, 2:] -= boxes[:, :2]
    for box, label, score in zip(boxes.tolist(), found["labels"].tolist(), found["scores"].tolist(), strict=True):
        yield {"image_id": image_id, "category_id": category_ids[int(label) - 1], "bbox": box, "score": score}


def average_precision(data: CocoDetection, detections: Sequence[Detection]) -> dict[str, Any]:
    """COCO's figures, by pycocotools.

    Args:
        data: with the true boxes.
        detections: in COCO's result format.

    Returns:
        "AP", "AP50", "AP75", "AP small", "AP medium", "AP large" and "AR" (of up to 100 boxes an image), 0 to 1; None
        where no true box is of that size. "classes": name -> "AP", "AP50" and "AP75".
    """
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it prints a table of its own
        evaluation = COCOeval(data.coco, data.coco.loadRes(list(detections)) if detections else _nothing(data), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    figures: dict[str, Any] = {name: _figure(evaluation.stats[place]) for name, place in FIGURES.items()}
    precision = evaluation.eval["precision"]  # thresholds of IoU, recalls, classes, sizes, numbers of detections
    classes = {}
    for index, name in enumerate(data.names):
        one = precision[:, :, index, 0, -1]
        classes[name] = {"AP": _mean(one), "AP50": _mean(one[0]), "AP75": _mean(one[5])}
    return {**figures, "classes": classes}


def _nothing(data: CocoDetection) -> Any:
    """No detections at all, which `loadRes` doesn't take."""
    from pycocotools.coco import COCO

    empty = COCO()
    empty.dataset = {**data.coco.dataset, "annotations": []}
    empty.createIndex()
    return empty


def _figure(value: float) -> float | None:
    return None if value < 0 else float(value)


def _mean(values: np.ndarray[Any, Any]) -> float | None:
    counted = values[values > -1]
    return float(counted.mean()) if counted.size else None


def ap_table(figures: dict[str, Any]) -> str:
    """The figures in per cent, in lines of up to 80 columns."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("class", overflow="fold")
    for column in ("AP", "AP50", "AP75"):
        table.add_column(column, justify="right")
    rows = [*figures["classes"].items(), ("all", figures)]
    for name, row in rows:
        if name == "all":
            table.add_section()
        table.add_row(name, *(_percent(row[column]) for column in ("AP", "AP50", "AP75")))
    console = Console(width=WIDTH, file=io.StringIO(), color_system=None)
    console.print(table)
    sizes = "  ".join(f"{name} {_percent(figures[f'AP {name}'])}" for name in ("small", "medium", "large"))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join([*lines, f" AP of boxes by size: {sizes}", f" AR: {_percent(figures['AR'])}"])


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
