"""The detectors of detectron2's and detrex's model zoos: their files, and what is known of the backbone in each.

They stand in detectors.csv, sorted. `file` is what follows the name in detectron2's folder, the release of detrex that
has `<name>.pth`, or a URL; `override` is what the ready config needs so that it has the detector's maps; `theirs` is
the project's own config. Read in detectron2's MODEL_ZOO.md and projects/*/README.md (DensePose's left out), and in
detrex's Model_Zoo.md and projects/*/README.md.
"""

from __future__ import annotations

import csv
import re
from importlib import resources

from detrex_backbones.checkpoint.fetch.catalog.weight import CAFFE2, IMAGENET, MSRA, Weight

__all__ = ["DETECTRON2", "DETREX", "DETREX_SCHEME", "MD5", "STRIDE_IN_1X1", "detrex_detector"]

DETECTRON2_SCHEME, DETREX_SCHEME = "detectron2://", "detrex://"
DETECTRON2_URL = "https://dl.fbaipublicfiles.com/detectron2/{name}/{file}"
DETREX_URL = "https://github.com/IDEA-Research/detrex-storage/releases/download/{file}/{name}.pth"
LICENCES = {DETECTRON2_SCHEME: "CC BY-SA 3.0", DETREX_SCHEME: ""}
STRIDE_IN_1X1 = "model.backbone.stages.stride_in_1x1=True"
PREPROCESSING = {known.name: known for known in (IMAGENET, MSRA, CAFFE2)}
MD5 = re.compile(r"model_(?:final|\d+)_([0-9a-f]{6,32})\.pkl$")


def _rows() -> list[dict[str, str]]:
    table = resources.files("detrex_backbones.checkpoint.fetch.catalog").joinpath("detectors.csv")
    return list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))


def _weight(row: dict[str, str]) -> Weight:
    name, file, config = row["name"], row["file"], row["config"]
    scheme, separator, rest = name.partition("://")
    url = file if "://" in file else (DETREX_URL if scheme == "detrex" else DETECTRON2_URL).format(name=rest, file=file)
    md5 = MD5.search(file)
    overrides = [f"model.backbone.{row['override']}"] if row["override"] else []
    overrides += [STRIDE_IN_1X1] if config and row["stride"] == "1x1" else []
    style = re.search(r"_dc5_(\w+)", config)
    return Weight(
        name=name,
        url=url,
        hash=f"md5:{md5[1]}" if md5 else "",
        preprocessing=PREPROCESSING[row["pixels"]],
        model=row["network"],
        config=config,
        overrides=tuple(overrides),
        stride_in_1x1={"1x1": True, "3x3": False}.get(row["stride"]),
        dilation_style=style[1] if style else None,
        norm_eps=1e-5 if config.startswith("resnet/") else None,
        classes=0,
        licence=LICENCES[scheme + separator],
    )


_all = {row["name"]: _weight(row) for row in _rows()}
DETECTRON2 = {name.removeprefix(DETECTRON2_SCHEME): w for name, w in _all.items() if name.startswith(DETECTRON2_SCHEME)}
DETREX = {name.removeprefix(DETREX_SCHEME): w for name, w in _all.items() if name.startswith(DETREX_SCHEME)}


def detrex_detector(name: str) -> Weight | None:
    """A detector of detrex's by its file's name or, where that is one file, by its config's; None if unknown.

    Args:
        name: "dino_swin_large_384_4scale_36ep", with or without an extension.
    """
    name = re.sub(r"\.(?:pth|py)$", "", name)
    if name in DETREX:
        return DETREX[name]
    configs = [row["name"] for row in _rows() if row["theirs"].endswith(f"/{name}.py")]
    same = [_all[one] for one in configs if one.startswith(DETREX_SCHEME)]
    return same[0] if len(same) == 1 else None
