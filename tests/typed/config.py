"""A config as its user's type checker sees it. test_typed.py runs mypy over it, and then the file itself.

An ignored error that is no error is an error of mypy strict's: so the ignored lines say what is found, and the others
what isn't. They are in functions that nobody calls.
"""

from typing import Any

from omegaconf import MISSING, SI
from torch import nn

import detrex_backbones
from detrex_backbones import (
    BasicStem,
    FeatureExtractor,
    FrozenBatchNorm2d,
    ResNet,
    SimpleFeaturePyramid,
    TimmBackbone,
    make_stage,
)
from detrex_backbones.config import LazyCall as L

# Nodes as arguments, where modules and lists of modules are wanted.
backbone = L(ResNet)(
    stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
    stages=L(make_stage)(depth=50, stride_in_1x1=False, norm="FrozenBN"),
    out_features=["res3", "res4", "res5"],
    freeze_at=1,
)
model = L(FeatureExtractor)(
    backbone=backbone, pixel_mean=[123.675, 116.28, 103.53], pixel_std=[58.395, 57.12, 57.375], input_format="RGB"
)
model.backbone.stages.depth = 101  # keys are anybody's guess, and Any

default_stages = L(ResNet.make_default_stages)(depth=50, norm="FrozenBN", stride_in_1x1=False)
by_name = L("torch.nn.Conv2d")(in_channels=3, out_channels=8, kernel_size=3)
of_torch = detrex_backbones.LazyCall(nn.Conv2d)(in_channels=3, out_channels=8, kernel_size=3)
in_a_list = L(nn.Sequential)()
plain = L(dict)(lr=0.1, weight_decay=0.0)
timm = L(TimmBackbone)(model_name="resnet18d", out_indices=(1, 2, 3), norm_layer=FrozenBatchNorm2d, drop_path_rate=0.1)

# What comes later, and what stands elsewhere in the config, have a type of any kind.
pyramid = L(SimpleFeaturePyramid)(net=MISSING, in_feature="p11", out_channels=256, scale_factors=[2.0, 1.0])
pyramid.net = L(TimmBackbone)(model_name="vit_tiny_patch16_224", out_indices=None)
classifier = L(ResNet)(stem=backbone.stem, stages=backbone.stages, num_classes=SI("${..classes}"))


def what_is_found() -> list[Any]:
    """The arguments are the target's own."""
    return [
        L(ResNet)(stem=backbone.stem, stages=backbone.stages, freze_at=1),  # type: ignore[call-arg]
        L(ResNet)(stem=backbone.stem),  # type: ignore[call-arg]
        L(BasicStem)(in_channels="three"),  # type: ignore[arg-type]
        L(make_stage)(depth=50, strides_in_1x1=False),  # type: ignore[call-arg]
        L(ResNet.make_default_stages)(deep=50),  # type: ignore[call-arg]
        L(nn.Conv2d)(in_channels=3, out_channels=8),  # type: ignore[call-arg]
        L(3),  # type: ignore[call-overload]
    ]
