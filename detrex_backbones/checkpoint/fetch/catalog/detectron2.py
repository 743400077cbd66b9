"""detectron2's weights, and those of the Detectron before it. The zoo's licence is CC BY-SA 3.0.

`detectron2://PATH` is a path under the zoo's folder, for a detector also `detectron2://COCO-Detection/CONFIG` without
the number and the file, with or without ".yaml" or ".py", as detectron2's `model_zoo.get_checkpoint_url` takes it;
`catalog://ImageNetPretrained/...` is one of the older files. The same file name, R-50.pkl, stands in both and in two
folders of the newer, each time for another content: so no file is recognised by that name alone. Detectors carry the
beginning of their md5 in the name, ImageNet files carry no hash.
"""

from __future__ import annotations

import re

from detrex_backbones.checkpoint.fetch.catalog.detectors import DETECTRON2, MD5, STRIDE_IN_1X1
from detrex_backbones.checkpoint.fetch.catalog.weight import CAFFE2, DETECTRON, IMAGENET, MSRA, Preprocessing, Weight

__all__ = ["CATALOG_SCHEME", "CATALOG_WEIGHTS", "SCHEME", "WEIGHTS", "by_path", "zoo_name"]

SCHEME, CATALOG_SCHEME = "detectron2://", "catalog://"
URL = "https://dl.fbaipublicfiles.com/detectron2/"
OLD_URL = "https://dl.fbaipublicfiles.com/detectron/"
LICENCE = "CC BY-SA 3.0"
CONFIG = r"\.(?:yaml|py)$"
EXTENSIONS = (".pkl", ".pth", ".pyth")

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


def zoo_name(text: str) -> str:
    """The name of a detector that is called as detectron2's `model_zoo` calls it, without a scheme; "" for any other.

    Args:
        text: "COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml".
    """
    name = re.sub(CONFIG, "", text)
    return SCHEME + name if name in DETECTRON2 else ""


def by_path(path: str) -> Weight | None:
    """A weight by its name, or by its path under detectron2's folder; what it assumes is known for the listed ones."""
    known = WEIGHTS.get(re.sub(CONFIG, "", path)) or next(
        (weight for weight in WEIGHTS.values() if weight.url == URL + path), None
    )
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


_imagenets = {row[0]: _imagenet(*row) for row in IMAGENET_TABLE}
WEIGHTS = {**_imagenets, **DETECTRON2}
CATALOG_WEIGHTS = {f"ImageNetPretrained/{row[0]}": _from_catalog(*row) for row in CATALOG_TABLE}
