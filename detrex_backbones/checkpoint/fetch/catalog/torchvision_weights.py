"""torchvision's weights, from torchvision's own metadata. File names carry the beginning of their sha256."""

from __future__ import annotations

import functools
import math
import re
from typing import Any

from detrex_backbones.checkpoint.fetch.catalog.library_tables import LibraryTable, library_table
from detrex_backbones.checkpoint.fetch.catalog.weight import IMAGENET, Preprocessing, Recipe, Weight

__all__ = ["SCHEME", "ask", "by_hash", "get", "names"]

SCHEME = "torchvision://"
SHA256 = re.compile(r"-([0-9a-f]{8,64})\.pth$")

# Networks that this library's ResNet is.
BASIC = ("resnet18", "resnet34")
BOTTLENECK = (
    *("resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    *("wide_resnet50_2", "wide_resnet101_2"),
)

# Detectors that this library has a config of, and those whose frozen norms torchvision leaves without an eps.
DETECTORS = {
    "fasterrcnn_resnet50_fpn-coco_v1": "faster_rcnn_resnet50_fpn_coco",
    "fasterrcnn_resnet50_fpn_v2-coco_v1": "faster_rcnn_resnet50_fpn_v2_coco",
    "retinanet_resnet50_fpn-coco_v1": "retinanet_resnet50_fpn_coco",
    "retinanet_resnet50_fpn_v2-coco_v1": "retinanet_resnet50_fpn_v2_coco",
}
WITHOUT_EPS = (
    "fasterrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
)
IN_DETECTORS = re.compile("(fasterrcnn|maskrcnn|keypointrcnn|retinanet)_resnet50")

# Networks whose batch norms have another eps than torch's 1e-5; and those without any, or of videos.
LARGE_EPS = re.compile(r"(efficientnet_(b[567]|v2)|mobilenet_v3|inception|googlenet)")
NO_NORMS = re.compile(r"(alexnet|convnext|squeezenet|swin|vit|vgg\d+(?!_bn)$|maxvit|mvit|mc3|r2plus1d|r3d|s3d)")


def ask() -> LibraryTable:
    """torchvision's own answer, which imports it."""
    networks = dict.fromkeys(short.rpartition("-")[0] for short in _members())
    return LibraryTable(tuple(networks), {short: _weight(short, member) for short, member in _members().items()})


def names() -> list[str]:
    """Every name, shortest form: "resnet50-v2", "vit_b_16-swag_e2e_v1"."""
    table = library_table("torchvision", ask)
    return list(_members() if table is None else table.weights)


def get(name: str) -> Weight | None:
    """A weight by its short name, a network's name for its best weights, or torchvision's own name; None if unknown.

    Args:
        name: "resnet50-v2", "resnet50", "ResNet50_Weights.IMAGENET1K_V2" or "ResNet50_Weights.DEFAULT".
    """
    table = library_table("torchvision", ask)
    if table is not None and name in table.weights:
        return table.weights[name]
    if "." in name:
        from torchvision.models import get_weight

        try:
            member = get_weight(name)
        except (KeyError, ValueError):
            return None
        short = next((short for short, other in _members().items() if other is member), name)
        return _weight(short, member)
    if name in _members():
        return _weight(name, _members()[name])
    from torchvision.models import get_model_weights

    networks = {short.rpartition("-")[0] for short in _members()}
    return get(str(get_model_weights(name).DEFAULT)) if name in networks else None


def by_hash(digest: str) -> Weight | None:
    """The weight whose published file has this hash in its name."""
    weights = (get(name) for name in names())
    return next((weight for weight in weights if weight and f"-{digest}." in weight.url), None)


@functools.cache
def _members() -> dict[str, Any]:
    from torchvision.models import get_model_weights, list_models

    members = {}
    for network in list_models(exclude="quantized_*"):  # int8, which no float network takes
        for member in get_model_weights(network):
            members[f"{network}-{member.name.removeprefix('IMAGENET1K_').lower()}"] = member
    return members


def _weight(short: str, member: Any) -> Weight:
    network = short.rpartition("-")[0]
    preset = member.transforms()
    digest = SHA256.search(member.url)
    ours, detector = network in (*BASIC, *BOTTLENECK), bool(IN_DETECTORS.match(network))
    metrics = member.meta.get("_metrics", {}).get("ImageNet-1K", {})
    top1, top5 = (metrics.get(key, math.nan) for key in ("acc@1", "acc@5"))
    return Weight(
        name=SCHEME + short,
        url=member.url,
        hash=f"sha256:{digest[1]}" if digest else "",
        preprocessing=IMAGENET if detector else _preprocessing(preset),
        model=network,
        config=f"resnet/{network}.py" if ours else f"detectors/{DETECTORS[short]}.py" if short in DETECTORS else "",
        stride_in_1x1=False if network in BOTTLENECK or detector else None,
        norm_eps=0.0 if short.removesuffix("-coco_v1") in WITHOUT_EPS else _eps(network, detector, preset),
        top1=top1 if math.isfinite(top1) else None,
        top5=top5 if math.isfinite(top5) else None,
        parameters=member.meta.get("num_params"),
        classes=len(member.meta.get("categories") or ()) or None,
        recipe=_recipe(preset) if math.isfinite(top1) else None,
    )


def _eps(network: str, detector: bool, preset: Any) -> float | None:
    """That of the batch norms of a classifier, or of a detector over a ResNet."""
    classifies = hasattr(preset, "crop_size")
    if not (classifies or detector) or NO_NORMS.match(network):
        return None
    return 1e-3 if LARGE_EPS.match(network) else 1e-5


def _preprocessing(preset: Any) -> Preprocessing | None:
    if not hasattr(preset, "mean"):
        return None  # another detector: it normalises inside
    mean = tuple(round(value * 255, 4) for value in preset.mean)
    std = tuple(round(value * 255, 4) for value in preset.std)
    return IMAGENET if (mean, std) == (IMAGENET.pixel_mean, IMAGENET.pixel_std) else Preprocessing("own", mean, std)


def _recipe(preset: Any) -> Recipe:
    return Recipe(preset.resize_size[0], preset.crop_size[0], preset.interpolation.value)
