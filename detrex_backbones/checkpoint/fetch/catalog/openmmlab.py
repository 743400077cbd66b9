"""OpenMMLab's backbones: the aliases of mmengine's hub. The hexadecimal part of a name is the beginning of its sha256.

"caffe" and "msra" files have the stride in the first 1x1 convolution and take BGR; nothing in the file says so.
"""

from __future__ import annotations

from detrex_backbones.checkpoint.fetch.catalog.weight import (
    CAFFE2,
    IMAGENET,
    MSRA,
    RESNEST,
    SSD,
    YOLO,
    Preprocessing,
    Recipe,
    Weight,
)
from detrex_backbones.checkpoint.fetch.catalog.weight import DETECTRON as DET1

__all__ = ["MMCLS", "MMCLS_SCHEME", "SCHEME", "WEIGHTS"]

SCHEME, MMCLS_SCHEME = "open-mmlab://", "mmcls://"
URL = "https://download.openmmlab.com/pretrain/third_party/{file}.pth"
MMCLS_URL = "https://download.openmmlab.com/mmclassification/v0/{file}.pth"

# alias, file, preprocessing, ready config, stride_in_1x1 (None: a network without that choice).
TABLE: tuple[tuple[str, str, Preprocessing, str, bool | None], ...] = (
    ("detectron/resnet50_caffe", "resnet50_caffe-788b5fa3", DET1, "resnet/resnet50.py", True),
    ("detectron/resnet101_caffe", "resnet101_caffe-3ad79236", DET1, "resnet/resnet101.py", True),
    ("detectron2/resnet50_caffe", "resnet50_msra-5891d200", MSRA, "resnet/resnet50.py", True),
    ("detectron2/resnet101_caffe", "resnet101_msra-6cc46731", MSRA, "resnet/resnet101.py", True),
    ("detectron2/resnext101_32x8d", "resnext101_32x8d-1516f1aa", CAFFE2, "resnet/resnext101_32x8d.py", False),
    ("resnext50_32x4d", "resnext50-32x4d-0ab1a123", IMAGENET, "resnet/resnext50_32x4d.py", False),
    ("resnext101_32x4d", "resnext101_32x4d-a5af3160", IMAGENET, "gluon/resnext101_32x4d.py", False),
    ("resnext101_64x4d", "resnext101_64x4d-ee2c6f71", IMAGENET, "resnet/resnext101_64x4d.py", False),
    ("resnet18_v1c", "resnet18_v1c-b5776b93", IMAGENET, "", None),
    ("resnet50_v1c", "resnet50_v1c-2cccc1ad", IMAGENET, "gluon/resnet50_v1c.py", False),
    ("resnet101_v1c", "resnet101_v1c-e67eebb6", IMAGENET, "gluon/resnet101_v1c.py", False),
    ("resnest50", "resnest50_d2-7497a55b", RESNEST, "", None),
    ("resnest101", "resnest101_d2-f3b931b2", RESNEST, "", None),
    ("resnest200", "resnest200_d2-ca88e41f", RESNEST, "", None),
    ("res2net101_v1d_26w_4s", "res2net101_v1d_26w_4s_mmdetv2-f0a600f9", IMAGENET, "", None),
    ("vgg16_caffe", "vgg16_caffe-292e1171", SSD, "vgg/ssd_vgg16.py", None),
    ("darknet53", "darknet53-a628ea1b", YOLO, "darknet/darknet53.py", None),
    ("msra/hrnetv2_w18_small", "hrnetv2_w18_small-b5a04e21", IMAGENET, "", None),
    ("msra/hrnetv2_w18", "hrnetv2_w18-00eb2006", IMAGENET, "", None),
    ("msra/hrnetv2_w32", "hrnetv2_w32-dc9eeb4f", IMAGENET, "", None),
    ("msra/hrnetv2_w40", "hrnetv2_w40-ed0b031c", IMAGENET, "", None),
    ("msra/hrnetv2_w48", "hrnetv2_w48-d2186c55", IMAGENET, "", None),
    ("detectron/resnet50_gn", "resnet50_gn-9186a21c", MSRA, "", False),
    ("detectron/resnet101_gn", "resnet101_gn-cac0ab98", MSRA, "", False),
    ("contrib/resnet50_gn", "resnet50_gn_thangvubk-ad1730dd", IMAGENET, "", False),
    ("jhu/resnet50_gn_ws", "resnet50_gn_ws-15beedd8", IMAGENET, "", False),
    ("regnetx_400mf", "regnetx_400mf-a5b10d96", CAFFE2, "regnet/regnetx_400mf.py", False),
    ("regnetx_800mf", "regnetx_800mf-1f4be4c7", CAFFE2, "regnet/regnetx_800mf.py", False),
    ("regnetx_1.6gf", "regnetx_1.6gf-5791c176", CAFFE2, "regnet/regnetx_1_6gf.py", False),
    ("regnetx_3.2gf", "regnetx_3.2gf-c2599b0f", CAFFE2, "regnet/regnetx_3_2gf.py", False),
    ("regnetx_4.0gf", "regnetx_4.0gf-a88f671e", CAFFE2, "regnet/regnetx_4_0gf.py", False),
    ("regnetx_6.4gf", "regnetx_6.4gf-006af45d", CAFFE2, "regnet/regnetx_6_4gf.py", False),
    ("regnetx_8.0gf", "regnetx_8.0gf-3c68abe7", CAFFE2, "regnet/regnetx_8_0gf.py", False),
    ("regnetx_12gf", "regnetx_12gf-4c2a3350", CAFFE2, "regnet/regnetx_12gf.py", False),
)

# Files of mmpretrain, with its classifier: name, file, ready config.
MMCLS_TABLE = (
    ("resnet18", "resnet/resnet18_8xb32_in1k_20210831-fbbb1da6", "resnet/resnet18.py"),
    ("resnet34", "resnet/resnet34_8xb32_in1k_20210831-f257d4e6", "resnet/resnet34.py"),
    ("resnet50", "resnet/resnet50_8xb32_in1k_20210831-ea4938fc", "resnet/resnet50.py"),
    ("resnet101", "resnet/resnet101_8xb32_in1k_20210831-539c63f8", "resnet/resnet101.py"),
    ("resnet152", "resnet/resnet152_8xb32_in1k_20210901-4d7582fa", "resnet/resnet152.py"),
    ("resnet50_v1d", "resnet/resnetv1d50_b32x8_imagenet_20210531-db14775a", "gluon/resnet50_v1d.py"),
    ("resnet101_v1d", "resnet/resnetv1d101_b32x8_imagenet_20210531-6e13bcd3", "gluon/resnet101_v1d.py"),
    ("resnet152_v1d", "resnet/resnetv1d152_b32x8_imagenet_20210531-278cf22a", "gluon/resnet152_v1d.py"),
    ("resnext50_32x4d", "resnext/resnext50_32x4d_b32x8_imagenet_20210429-56066e27", "resnet/resnext50_32x4d.py"),
    ("resnext101_32x4d", "resnext/resnext101_32x4d_b32x8_imagenet_20210506-e0fa3dd5", "gluon/resnext101_32x4d.py"),
    ("resnext101_32x8d", "resnext/resnext101_32x8d_b32x8_imagenet_20210506-23a247d5", "resnet/resnext101_32x8d.py"),
    ("se-resnet50", "se-resnet/se-resnet50_batch256_imagenet_20200804-ae206104", ""),
    ("se-resnet101", "se-resnet/se-resnet101_batch256_imagenet_20200804-ba5b51d4", ""),
)


def _weight(alias: str, file: str, preprocessing: Preprocessing, config: str, stride_in_1x1: bool | None) -> Weight:
    return Weight(
        name=SCHEME + alias,
        url=URL.format(file=file),
        hash=f"sha256:{file.rpartition('-')[2]}",
        preprocessing=preprocessing,
        model=alias.rpartition("/")[2].removesuffix("_caffe"),
        config=config,
        overrides=("model.backbone.stages.stride_in_1x1=True",) if stride_in_1x1 else (),
        stride_in_1x1=stride_in_1x1,
        norm_eps=1e-5 if config and preprocessing is not SSD else None,  # that one has no norms
        weight_standardization=True if alias.endswith("_ws") else None,
        # OpenMMLab's own configs use two means with these two files, and call both right.
        uncertain=("pixel_mean",) if preprocessing is DET1 else (),
        classes=None if alias.startswith("regnetx") else 0,
    )


def _mmcls_weight(name: str, file: str, config: str) -> Weight:
    return Weight(
        name=MMCLS_SCHEME + name,
        url=MMCLS_URL.format(file=file),
        hash=f"sha256:{file.rpartition('-')[2]}",
        preprocessing=IMAGENET,
        model=name,
        config=config,
        stride_in_1x1=None if name in ("resnet18", "resnet34") else False,
        norm_eps=1e-5,
        classes=1000,
        recipe=Recipe(256, 224, "bilinear"),
    )


WEIGHTS = {row[0]: _weight(*row) for row in TABLE}
MMCLS = {row[0]: _mmcls_weight(*row) for row in MMCLS_TABLE}
