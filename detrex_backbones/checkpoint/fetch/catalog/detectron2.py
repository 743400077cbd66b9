"""detectron2's weights, and those of the Detectron before it. The zoo's licence is CC BY-SA 3.0.

`detectron2://PATH` is a path under the zoo's folder, for a detector also `detectron2://COCO-Detection/CONFIG` without
the number and the file; `catalog://ImageNetPretrained/...` is one of the older files. The same file name, R-50.pkl,
stands in both and in two folders of the newer, each time for another content: so no file is recognised by that name
alone. Detectors carry the beginning of their md5 in the name, ImageNet files carry no hash.
"""

from __future__ import annotations

import re

from detrex_backbones.checkpoint.fetch.catalog.detectron2_zoo import ZOO
from detrex_backbones.checkpoint.fetch.catalog.weight import CAFFE2, DETECTRON, IMAGENET, MSRA, Preprocessing, Weight

__all__ = ["CATALOG_SCHEME", "CATALOG_WEIGHTS", "SCHEME", "WEIGHTS", "by_path"]

SCHEME, CATALOG_SCHEME = "detectron2://", "catalog://"
URL = "https://dl.fbaipublicfiles.com/detectron2/"
OLD_URL = "https://dl.fbaipublicfiles.com/detectron/"
LICENCE = "CC BY-SA 3.0"
STRIDE_IN_1X1 = "model.backbone.stages.stride_in_1x1=True"
EXTENSIONS = (".pkl", ".pth", ".pyth")
MD5 = re.compile(r"model_(?:final|\d+)_([0-9a-f]{6,32})\.pkl$")

# path, preprocessing, network, ready config, stride_in_1x1.
IMAGENET_TABLE = (
    ("ImageNetPretrained/MSRA/R-50.pkl", MSRA, "resnet50", "resnet/resnet50.py", True),
    ("ImageNetPretrained/MSRA/R-101.pkl", MSRA, "resnet101", "resnet/resnet101.py", True),
    ("ImageNetPretrained/FAIR/X-101-32x8d.pkl", CAFFE2, "resnext101_32x8d", "resnet/resnext101_32x8d.py", False),
    ("ImageNetPretrained/torchvision/R-50.pkl", IMAGENET, "resnet50", "resnet/resnet50.py", False),
    ("DeepLab/R-52.pkl", IMAGENET, "resnet52", "", False),
    ("DeepLab/R-103.pkl", IMAGENET, "resnet103", "", False),
)

# name, path, preprocessing, network, ready config, stride_in_1x1.
CATALOG_TABLE = (
    ("MSRA/R-50", "MSRA/R-50.pkl", DETECTRON, "resnet50", "resnet/resnet50.py", True),
    ("MSRA/R-101", "MSRA/R-101.pkl", DETECTRON, "resnet101", "resnet/resnet101.py", True),
    ("FAIR/R-50-GN", "47261647/R-50-GN.pkl", MSRA, "resnet50-gn", "", False),
    ("FAIR/R-101-GN", "47592356/R-101-GN.pkl", MSRA, "resnet101-gn", "", False),
    ("FAIR/X-101-32x8d", "20171220/X-101-32x8d.pkl", MSRA, "resnext101_32x8d", "resnet/resnext101_32x8d.py", False),
    ("FAIR/X-101-64x4d", "FBResNeXt/X-101-64x4d.pkl", MSRA, "resnext101_64x4d", "resnet/resnext101_64x4d.py", False),
    ("FAIR/X-152-32x8d-IN5k", "25093814/X-152-32x8d-IN5k.pkl", MSRA, "resnext152_32x8d", "", False),
)


def by_path(path: str) -> Weight | None:
    """A weight by its name, or by its path under detectron2's folder; what it assumes is known for the listed ones."""
    known = WEIGHTS.get(path) or next((weight for weight in WEIGHTS.values() if weight.url == URL + path), None)
    if known or not path.endswith(EXTENSIONS) or ".." in path:
        return known
    digest = MD5.search(path)
    return Weight(SCHEME + path, URL + path, hash=f"md5:{digest[1]}" if digest else "")


def _imagenet(path: str, preprocessing: Preprocessing, model: str, config: str, stride_in_1x1: bool) -> Weight:
    return Weight(
        name=SCHEME + path,
        url=URL + path,
        preprocessing=preprocessing,
        model=model,
        config=config,
        overrides=(STRIDE_IN_1X1,) if stride_in_1x1 else (),
        stride_in_1x1=stride_in_1x1,
        norm_eps=1e-5,
        licence=LICENCE,
    )


def _from_catalog(
    name: str, path: str, preprocessing: Preprocessing, model: str, config: str, stride_in_1x1: bool
) -> Weight:
    return Weight(
        name=f"{CATALOG_SCHEME}ImageNetPretrained/{name}",
        url=f"{OLD_URL}ImageNetPretrained/{path}",
        preprocessing=preprocessing,
        model=model,
        config=config,
        overrides=(STRIDE_IN_1X1,) if stride_in_1x1 else (),
        stride_in_1x1=stride_in_1x1,
        # detectron2's configs feed these files MSRA's mean, Detectron's its own: they differ by less than 1.
        uncertain=("pixel_mean",),
    )


def _detector(folder: str, name: str, number: int, md5: str) -> Weight:
    preprocessing, stride_in_1x1 = _trained_with(name)
    model, config = _backbone_of(name)
    return Weight(
        name=f"{SCHEME}{folder}/{name}",
        url=f"{URL}{folder}/{name}/{number}/model_final_{md5}.pkl",
        hash=f"md5:{md5}",
        preprocessing=preprocessing,
        model=model,
        config=config,
        overrides=(STRIDE_IN_1X1,) if config and stride_in_1x1 else (),
        stride_in_1x1=stride_in_1x1,
        dilation_style="detectron2" if "_DC5_" in name else None,
        norm_eps=1e-5 if config else None,
        licence=LICENCE,
    )


def _trained_with(name: str) -> tuple[Preprocessing, bool]:
    """What detectron2's own config of this name says of pixels and stride."""
    if re.search(r"X_101|regnet|9x_", name):
        return CAFFE2, False
    return MSRA, not re.search(r"X_152|_gn", name)


def _backbone_of(name: str) -> tuple[str, str]:
    """The network inside a detector and its ready config: "" for group norms, deformable convolutions and RegNet."""
    if re.search(r"_gn|dconv|regnet", name):
        return "", ""
    if "X_101" in name:
        return "resnext101_32x8d", "resnet/resnext101_32x8d.py"
    model = "resnet101" if "R_101" in name else "resnet50"
    return model, f"resnet/{model}_dc5_detectron2.py" if "_DC5_" in name else f"resnet/{model}.py"


_weights = [_imagenet(*row) for row in IMAGENET_TABLE]
_weights += [_detector(folder, *row) for folder, rows in ZOO.items() for row in rows]
WEIGHTS = {weight.name.removeprefix(SCHEME): weight for weight in _weights}
CATALOG_WEIGHTS = {f"ImageNetPretrained/{row[0]}": _from_catalog(*row) for row in CATALOG_TABLE}
