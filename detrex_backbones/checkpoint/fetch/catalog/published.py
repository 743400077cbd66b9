"""DETR (sha256 in the file's name), MoCo (md5 in its README), and torchvision's files of before 2021, named by URL."""

from __future__ import annotations

from detrex_backbones.checkpoint.fetch.catalog.weight import IMAGENET, Weight

__all__ = ["DETR", "DETR_SCHEME", "MOCO", "MOCO_SCHEME", "OLD_TORCHVISION"]

DETR_SCHEME, MOCO_SCHEME = "detr://", "moco://"
DETR_URL = "https://dl.fbaipublicfiles.com/detr/{file}.pth"
MOCO_URL = "https://dl.fbaipublicfiles.com/moco/moco_checkpoints/moco_{name}/moco_{name}_pretrain.pth.tar"
TORCHVISION_URL = "https://download.pytorch.org/models/{model}-{hash}.pth"

DETR_TABLE = (
    "detr-r50-e632da11",
    "detr-r50-dc5-f0fb7ef5",
    "detr-r101-2c7b67e5",
    "detr-r101-dc5-a2e86def",
    "detr-r50-panoptic-00ce5173",
    "detr-r50-dc5-panoptic-da08f1b1",
    "detr-r101-panoptic-40021d53",
)

# name, md5.
MOCO_TABLE = (("v1_200ep", "b251726a"), ("v2_200ep", "59fd9945"), ("v2_800ep", "a04e12f8"))

# torchvision's V1 weights under the names that they had until 2021: network, sha256, parameters, top-1, top-5.
TORCHVISION_TABLE = (
    ("resnet18", "5c106cde", 11_689_512, 69.758, 89.078),
    ("resnet34", "333f7ec4", 21_797_672, 73.314, 91.420),
    ("resnet50", "19c8e357", 25_557_032, 76.130, 92.862),
    ("resnet101", "5d3b4d8f", 44_549_160, 77.374, 93.546),
    ("resnet152", "b121ed2d", 60_192_808, 78.312, 94.046),
)


def _detr(file: str) -> Weight:
    url = DETR_URL.format(file=file)
    depth = "101" if "r101" in file else "50"
    dilated = "-dc5" in file
    return Weight(
        name=DETR_SCHEME + file.removeprefix("detr-").rpartition("-")[0],
        url=url,
        hash=f"sha256:{file.rpartition('-')[2]}",
        preprocessing=IMAGENET,
        model=f"resnet{depth}",
        config=f"resnet/resnet{depth}_dc5_torchvision.py" if dilated else f"resnet/resnet{depth}.py",
        stride_in_1x1=False,
        dilation_style="torchvision" if dilated else None,
        norm_eps=1e-5,
        classes=0,
    )


def _moco(name: str, md5: str) -> Weight:
    return Weight(
        name=MOCO_SCHEME + name,
        url=MOCO_URL.format(name=name),
        hash=f"md5:{md5}",
        preprocessing=IMAGENET,
        model="resnet50",
        config="resnet/resnet50.py",
        stride_in_1x1=False,
        norm_eps=1e-5,
        classes=0,
        licence="CC BY-NC 4.0",
    )


def _old_torchvision(model: str, sha256: str, parameters: int, top1: float, top5: float) -> Weight:
    url = TORCHVISION_URL.format(model=model, hash=sha256)
    return Weight(
        name=url,
        url=url,
        hash=f"sha256:{sha256}",
        preprocessing=IMAGENET,
        model=model,
        config=f"resnet/{model}.py",
        stride_in_1x1=None if model in ("resnet18", "resnet34") else False,
        norm_eps=1e-5,
        top1=top1,
        top5=top5,
        parameters=parameters,
        classes=1000,
    )


DETR = {weight.name.removeprefix(DETR_SCHEME): weight for weight in map(_detr, DETR_TABLE)}
MOCO = {row[0]: _moco(*row) for row in MOCO_TABLE}
OLD_TORCHVISION = {weight.url: weight for weight in (_old_torchvision(*row) for row in TORCHVISION_TABLE)}
