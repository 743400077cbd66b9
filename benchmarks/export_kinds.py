"""The kinds of backbones that the table of exports has a row for: a small one of each, with all that makes the kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from detrex_backbones import (
    FPN,
    SSDVGG,
    BasicStem,
    ConvNeXt,
    CSPDarknet,
    Darknet53,
    DeepStem,
    DINOv3STAs,
    EVA02_ViT,
    EVAViT,
    FeatureExtractor,
    FocalNet,
    InternImage,
    LastLevelMaxPool,
    LastLevelP6P7,
    LWDETRViT,
    MViT,
    ResNet,
    SimpleFeaturePyramid,
    SwinTransformer,
    TimmBackbone,
    TorchvisionBackbone,
    ViT,
    WindowedDINOv2,
    make_stage,
)

__all__ = ["KINDS", "Kind"]

IMAGENET = {"pixel_mean": [123.675, 116.28, 103.53], "pixel_std": [58.395, 57.12, 57.375]}


@dataclass(frozen=True)
class Kind:
    """One row.

    Args:
        name: in the table.
        build: makes the smallest network of the kind, in training mode, its weights random.
        step: what the sides of its images are multiples of, in pixels, in every column.
        pixels: whether it takes pixels of 0-255 rather than normalised images.
        fixed: whether height and width stay those of the example: the reason why, for a footnote.
    """

    name: str
    build: Callable[[], nn.Module]
    step: int = 32
    pixels: bool = False
    fixed: str = ""


def resnet(depth: int = 50, stem: nn.Module | None = None, **stages: Any) -> ResNet:
    """A ResNet of the first blocks: what a stage repeats adds time and shows nothing."""
    made = make_stage(depth=depth, norm="FrozenBN", **stages)
    blocks = [blocks[:2] for blocks in made]
    return ResNet(stem or BasicStem(norm="FrozenBN"), blocks, out_features=["res2", "res3", "res4", "res5"])


def _timm(name: str, **kwargs: Any) -> Callable[[], nn.Module]:
    return lambda: TimmBackbone(name, **{"out_indices": None, **kwargs})


def _torchvision(name: str, nodes: dict[str, str]) -> Callable[[], nn.Module]:
    return lambda: TorchvisionBackbone(name, return_nodes=nodes)


def _deformable(modulated: bool) -> Callable[[], nn.Module]:
    return lambda: resnet(deform_on_per_stage=[False, False, False, True], deform_modulated=modulated)


def _vitdet() -> nn.Module:
    net = TimmBackbone("vit_tiny_patch16_224", depth=2, out_indices=(1,))
    return SimpleFeaturePyramid(net, "p1", 64, (4.0, 2.0, 1.0, 0.5), top_block=LastLevelMaxPool())


def _fpn_of_convnext() -> nn.Module:
    net = TimmBackbone("convnext_atto", depths=SHALLOW, out_indices=(1, 2, 3))
    return FPN(net, out_channels=64, top_block=LastLevelP6P7(64, 64, "p5"))


def _small_swin() -> nn.Module:
    return SwinTransformer(embed_dim=24, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), window_size=2)


def _small_mvit() -> nn.Module:
    return MViT(embed_dim=16, depth=4, last_block_indexes=(0, 1, 2, 3), adaptive_window_size=8)


def _whole(backbone: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: FeatureExtractor(backbone(), **IMAGENET)  # type: ignore[arg-type]


SAME_PADDING = (
    "TensorFlow's padding is computed from the size of every map: where that is open, torch's reasoning about it "
    "doesn't end in minutes. Height and width are fixed, the batch isn't."
)
SHIFTED = (
    "Where height and width are open, torch's reasoning about windows that are shifted and filled up doesn't end in "
    "minutes. Height and width are fixed, the batch isn't."
)
TABLES = (
    "Tables of relative positions are resized to the map, whose size has to be known. Height and width are fixed, the "
    "batch isn't."
)
VIT = {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2, "window_size": 2, "window_block_indexes": [0]}
WINDOWED = {"embed_dim": 48, "depth": 2, "num_heads": 4, "num_windows": 2}
# The families' own depths repeat what is in their first blocks.
SHALLOW = (1, 1, 2, 1)

KINDS = (
    Kind("ResNet, basic blocks", lambda: resnet(18), step=1),
    Kind("ResNet, bottlenecks", resnet, step=1),
    Kind("ResNet-D", lambda: resnet(stem=DeepStem(norm="FrozenBN"), shortcut="avg_pool"), step=1),
    Kind("DC5, detectron2's", lambda: resnet(res5_dilation=2), step=1),
    Kind("DC5, torchvision's", lambda: resnet(res5_dilation=2, dilation_style="torchvision"), step=1),
    Kind("ResNeXt", lambda: resnet(num_groups=32, width_per_group=4), step=1),
    Kind("SE-ResNet", lambda: resnet(se_reduction=16), step=1),
    Kind("deformable", _deformable(modulated=False), step=1),
    Kind("deformable, modulated", _deformable(modulated=True), step=1),
    Kind("Darknet-53", lambda: Darknet53()),
    Kind("SSD's VGG-16", lambda: SSDVGG()),
    Kind("RegNetX", _timm("regnetx_002")),
    Kind("RegNetY", _timm("regnety_002")),
    Kind("torchvision ResNet", _torchvision("resnet18", {"layer3": "res4", "layer4": "res5"})),
    Kind("torchvision MobileNetV3", _torchvision("mobilenet_v3_small", {"features.3": "p2", "features.12": "p4"})),
    Kind("torchvision ConvNeXt", _torchvision("convnext_tiny", {"features.1": "p0", "features.3": "p1"})),
    Kind("torchvision Swin", _torchvision("swin_t", {"features.1": "p0", "features.3": "p1"}), step=56),
    Kind("timm ResNet-D", _timm("resnet18d", norm_layer="FrozenBN")),
    Kind("timm EfficientNet", _timm("efficientnet_b0")),
    Kind("timm EfficientNetV2", _timm("tf_efficientnetv2_b0"), fixed=SAME_PADDING),
    Kind("timm MobileNetV3", _timm("mobilenetv3_small_050")),
    Kind("timm DenseNet", _timm("densenet121", block_config=SHALLOW)),
    Kind("timm RepVGG", _timm("repvgg_a0", out_indices=(0, 1, 2))),
    Kind("timm ConvNeXt", _timm("convnext_atto", depths=SHALLOW)),
    Kind("timm ConvNeXtV2", _timm("convnextv2_atto", depths=SHALLOW)),
    Kind("timm Swin", _timm("swin_tiny_patch4_window7_224", out_indices=(0, 1)), step=56),
    Kind("timm PVTv2", _timm("pvt_v2_b0", depths=(1, 1, 1, 1))),
    Kind("timm ViT", _timm("vit_tiny_patch16_224", depth=2, out_indices=(1,)), step=16),
    Kind("timm ViT, registers (DINOv2)", _timm("vit_small_patch14_reg4_dinov2", depth=2, out_indices=(1,)), step=14),
    Kind("timm EVA-02", _timm("eva02_tiny_patch14_224", depth=2, out_indices=(1,)), step=14),
    Kind("SwinTransformer", _small_swin, step=64, fixed=SHIFTED),
    Kind("ViT in windows", lambda: ViT(**VIT)),
    Kind("ViT in windows, relative positions", lambda: ViT(**VIT, use_rel_pos=True), fixed=TABLES),
    Kind("MViT", _small_mvit, fixed=TABLES),
    Kind("EVAViT", lambda: EVAViT(**VIT, use_rel_pos=True), fixed=TABLES),
    Kind("EVA02_ViT", lambda: EVA02_ViT(**VIT)),
    Kind("ConvNeXt", lambda: ConvNeXt(depths=SHALLOW, dims=(16, 32, 64, 128))),
    Kind("FocalNet", lambda: FocalNet(embed_dim=16, depths=SHALLOW)),
    Kind("InternImage", lambda: InternImage(channels=16, depths=SHALLOW, groups=(1, 2, 4, 8))),
    Kind("LWDETRViT", lambda: LWDETRViT(**WINDOWED, window_block_indexes=[0], pretrain_img_size=64)),
    Kind("WindowedDINOv2", lambda: WindowedDINOv2(**WINDOWED, out_indices=(1, 2)), step=28),
    Kind("DINOv3STAs", lambda: DINOv3STAs("vit_tiny", interaction_indexes=(0, 1, 2))),
    Kind("CSPDarknet", lambda: CSPDarknet()),
    Kind("FPN of a ResNet", lambda: FPN(resnet(18), out_channels=64, norm="BN", top_block=LastLevelMaxPool()), step=1),
    Kind("FPN of a timm ConvNeXt, P6 and P7", _fpn_of_convnext, step=128),
    Kind("SimpleFeaturePyramid (ViTDet)", _vitdet),
    Kind("FeatureExtractor of a ResNet", _whole(lambda: resnet(18)), step=1, pixels=True),
    Kind("FeatureExtractor of ConvNeXt", _whole(_timm("convnext_atto", depths=SHALLOW)), step=1, pixels=True),
)
