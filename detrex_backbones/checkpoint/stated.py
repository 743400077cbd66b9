"""What a file says of the network that its weights were trained in: preprocessing, stride, eps.

OpenMMLab's files hold the text of their config, and a folder of Hugging Face has a `preprocessor_config.json` beside
the weights. Both are read as data: of the text only what is written out in it, and nothing in it is called.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from detrex_backbones.checkpoint.files import Checkpoint

__all__ = ["stated_traits"]

LONGEST = 1 << 20  # characters of a config's text: real ones have some ten thousand
KEYS = ("cfg", "config")  # mmengine's and mmcv's
PREPROCESSOR = "preprocessor_config.json"


def stated_traits(checkpoint: Checkpoint) -> dict[str, Any]:
    """Traits, see `match.traits`, that stand in the file or beside it; what isn't said is left out."""
    meta = checkpoint.extra.get("meta")
    text = next((meta[key] for key in KEYS if isinstance(meta.get(key), str)), "") if isinstance(meta, Mapping) else ""
    return _of_openmmlab(_written_out(text)) if text else _of_preprocessor(checkpoint)


def _of_openmmlab(config: Mapping[str, Any]) -> dict[str, Any]:
    """Preprocessing is of images in BGR, which OpenMMLab reads, unless they are turned round."""
    model = _mapping(config, "model")
    pixels = _mapping(model, "data_preprocessor") or _mapping(config, "data_preprocessor")
    pixels = pixels or _mapping(config, "img_norm_cfg")
    mean, std = _numbers(pixels.get("mean")), _numbers(pixels.get("std"))
    traits: dict[str, Any] = {}
    if mean and std:
        turned = pixels.get("bgr_to_rgb", pixels.get("to_rgb", False))
        traits = {"pixel_mean": mean, "pixel_std": std, "input_format": "RGB" if turned else "BGR"}
    backbone = _mapping(model, "backbone")
    kind, eps = str(backbone.get("type", "")), _mapping(backbone, "norm_cfg").get("eps")
    if kind.rpartition(".")[2] in ("ResNet", "ResNetV1d", "ResNeXt"):
        traits["stride_in_1x1"] = backbone.get("style", "pytorch") == "caffe"
    return traits | ({"norm_eps": float(eps)} if isinstance(eps, int | float) and 0 <= eps < 1 else {})


def _of_preprocessor(checkpoint: Checkpoint) -> dict[str, Any]:
    """Hugging Face's images are RGB, and of 0 to 1 where they are not said to be left as they are."""
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    try:
        given = json.loads((folder / PREPROCESSOR).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(given, dict) or not given.get("do_normalize", True) or not given.get("do_rescale", True):
        return {}
    mean, std = _numbers(given.get("image_mean")), _numbers(given.get("image_std"))
    factor = given.get("rescale_factor", 1 / 255)
    if not (mean and std and isinstance(factor, int | float) and 0 < factor <= 1):
        return {}
    turned = given.get("do_flip_channel_order") is True
    return {
        "pixel_mean": [value / factor for value in mean],
        "pixel_std": [value / factor for value in std],
        "input_format": "BGR" if turned else "RGB",
    }


def _mapping(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = config.get(key)
    return found if isinstance(found, Mapping) else {}


def _numbers(given: Any) -> list[float]:
    """Three finite numbers; [] for anything else."""
    numbers = given if isinstance(given, Sequence) and not isinstance(given, str | bytes) else ()
    fine = len(numbers) == 3 and all(isinstance(each, int | float) and math.isfinite(each) for each in numbers)
    return [float(each) for each in numbers] if fine else []


def _written_out(text: str) -> dict[str, Any]:
    """The names of a config's text whose values are written out: constants, lists, dicts, and calls of `dict`."""
    try:
        tree = ast.parse(text) if len(text) <= LONGEST else ast.Module([], [])
        return {
            target.id: _value(line.value)
            for line in tree.body
            if isinstance(line, ast.Assign)
            for target in line.targets
            if isinstance(target, ast.Name)
        }
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def _value(node: ast.AST) -> Any:
    """What is written there; None for what isn't plain data."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {part.arg: _value(part.value) for part in node.keywords if part.arg}
    if isinstance(node, ast.Dict):
        return {
            key.value: _value(value)
            for key, value in zip(node.keys, node.values, strict=True)
            if isinstance(key, ast.Constant)
        }
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(part) for part in node.elts]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        return -node.operand.value if isinstance(node.operand.value, int | float) else None
    return node.value if isinstance(node, ast.Constant) else None
