"""COCO's annotation files as people have them: completed where a part has one meaning, refused where it has several."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detrex_backbones.errors import InputError

__all__ = ["first_few", "read_coco"]

SHOWN = 5  # of a list in a message


def read_coco(annotations: str) -> Any:
    """pycocotools' index of an annotation file.

    The annotations are numbered from 1 on: pycocotools takes the id 0 for "found nothing", and of two that have the
    same id it knows one. A missing `area` is the box's, a missing `iscrowd` 0.

    Args:
        annotations: path of the JSON file.

    Raises:
        InputError: the file is missing or is not in COCO's format, ids of images or categories occur twice, or
            annotations are of images or categories that aren't there.
    """
    from pycocotools.coco import COCO

    path = Path(annotations)
    if not path.is_file():
        raise InputError(f"the annotations {annotations!r} do not exist. Set data.*.annotations.")
    try:
        content = json.loads(path.read_bytes())
        _complete(content)
    except (OSError, KeyError, TypeError, IndexError, AttributeError, ValueError, RecursionError) as error:
        told = f"there is no {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        raise InputError(
            f"the annotations {annotations!r} are not in COCO's format: {told}. "
            f"See https://cocodataset.org/#format-data."
        ) from error
    mistakes = "; ".join(_mistakes(content))
    if mistakes:
        raise InputError(f"the annotations {annotations!r} are not in COCO's format: {mistakes}.")
    coco = COCO()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):  # it prints that it is done
        coco.createIndex()
    return coco


def first_few(items: Iterable[Any]) -> str:
    """The first of some items, and how many more there are."""
    shown = list(map(str, items))
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return ", ".join(shown[:SHOWN]) + more


def _complete(content: dict[str, Any]) -> None:
    """Write what is missing, and read everything that is used later, so that it fails now."""
    for part in ("images", "categories"):
        kinds = sorted({type(entry["id"]).__name__ for entry in content[part]})
        if len(kinds) > 1:
            raise TypeError(f"the ids of {part} are of several kinds: {', '.join(kinds)}")
        sorted({entry["id"] for entry in content[part]})  # what can't be hashed or sorted is no id
    for image in content["images"]:
        if not isinstance(image["file_name"], str):
            raise TypeError(f"file_name {image['file_name']!r}")
        image |= {key: int(image[key]) for key in ("height", "width") if image.get(key) is not None}
    for category in content["categories"]:
        name = str(category["name"])
        category["name"] = name if name.isprintable() else ascii(name)
    for number, entry in enumerate(content["annotations"], start=1):
        hash(entry["image_id"]), hash(entry["category_id"])
        entry["id"] = number
        area = entry.get("area")
        if _is_box(entry.get("bbox")) and (area is None or not float(area) >= 0):
            area = entry["bbox"][2] * entry["bbox"][3]
        entry["area"] = area if area is None else float(area)
        entry["iscrowd"] = int(entry.get("iscrowd") or 0)


def _is_box(value: Any) -> bool:
    """Whether it is four numbers."""
    sides = value if isinstance(value, list) else []
    return len(sides) == 4 and all(isinstance(side, (int, float)) and math.isfinite(side) for side in sides)


def _mistakes(content: dict[str, Any]) -> Iterable[str]:
    for part, key in (("images", "id"), ("categories", "id"), ("categories", "name")):
        counts = Counter(entry[key] for entry in content[part])
        twice = first_few(repr(value) for value, count in counts.items() if count > 1)
        if twice:
            yield f"{part} that have the {key} of another: {twice}"
    for part, key in (("images", "image_id"), ("categories", "category_id")):
        known = {entry["id"] for entry in content[part]}
        astray = [entry[key] for entry in content["annotations"] if entry[key] not in known]
        if astray:
            different = first_few(map(repr, dict.fromkeys(astray)))
            yield f"{len(astray)} of the annotations, whose {key} none of the {part} has: {different}"
    boxes = [(entry, entry.get("bbox")) for entry in content["annotations"]]
    wrong = [f"number {one['id']} of image {one['image_id']}: {box!r:.60}" for one, box in boxes if not _is_box(box)]
    if wrong:
        yield f"{len(wrong)} of the annotations have a bbox that isn't [x, y, width, height]: {first_few(wrong)}"
