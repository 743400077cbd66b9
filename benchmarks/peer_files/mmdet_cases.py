"""OpenMMLab's backbones, in small. mmcv's compiled operators, which none of them calls, are stood in for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from benchmarks.peer_files.case import Case, timm_network, torchvision_network
from benchmarks.peer_files.stand_ins import without_compiled_mmcv
from detrex_backbones import (
    SSDVGG,
    BasicStem,
    CSPDarknet,
    Darknet53,
    DeepStem,
    PyramidVisionTransformer,
    RegNet,
    ResBottleneckBlock,
    ResNet,
    SimpleStem,
    SwinTransformer,
    make_stage,
)

__all__ = ["CASES"]

RES = ("res2", "res3", "res4", "res5")
REGNETX_400MF = {"stem_class": SimpleStem, "stem_width": 32, "block_class": ResBottleneckBlock, "depth": 22}
REGNETX_400MF |= {"w_a": 24.48, "w_0": 24, "w_m": 2.54, "group_width": 16}
SSD = {"out_indices": (3, 4), "out_feature_indices": (22, 34)}
MOBILE = {"features.3": "p1", "features.6": "p2", "features.13": "p3", "features.17": "p4"}


def build(name: str, **arguments: Any) -> nn.Module:
    """One of mmdet's backbones."""
    with without_compiled_mmcv():
        from mmdet.models import backbones
    net: nn.Module = getattr(backbones, name)(**arguments)
    return net


def maps(net: nn.Module, image: Tensor) -> Sequence[Tensor]:
    """Those that it gives."""
    found: Sequence[Tensor] = net(image)
    return found


def case(name: str, ours: tuple[Callable[[], nn.Module], str], **more: Any) -> Case:
    """A row: a network of ours, what `Case` takes, and arguments of OpenMMLab's class."""
    own = {key: more.pop(key) for key in ("sizes", "note", "refused") if key in more}
    return Case("mmdet", name.partition(",")[0], partial(build, name.partition(",")[0], **more), *ours, maps, **own)


def resnet(
    depth: int = 50,
    stem: str = "",
    norm: Any = "BN",
    out: Sequence[str] = RES,
    standardised: bool = False,
    **stages: Any,
) -> tuple[Callable[[], nn.Module], str]:
    """This library's ResNet."""
    said = ", ".join(f"{name}={value!r}" for name, value in stages.items())

    def network() -> nn.Module:
        first = DeepStem(out_channels=64, norm=norm) if stem == "deep" else BasicStem(norm=norm)
        made = make_stage(depth, norm=norm, **stages)
        return ResNet(first, made, out_features=out, weight_standardization=standardised)

    return network, f"ResNet with make_stage({depth}{', ' + said if said else ''})"


FOUR = {"out_indices": (0, 1, 2, 3)}
SWIN = {"depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}
WHOLE_PATCHES = ((192, 256), (164, 228), (224, 224))
AFTER_STEM = {"out_indices": (1, 2, 3, 4)}
GN = {"type": "GN", "num_groups": 32, "requires_grad": True}
BN = {"type": "BN"}
HRNET = {
    "stage1": {"num_modules": 1, "num_branches": 1, "block": "BOTTLENECK", "num_blocks": (4,), "num_channels": (64,)},
    **{
        f"stage{at}": {
            "num_modules": modules,
            "num_branches": at,
            "block": "BASIC",
            "num_blocks": (4,) * at,
            "num_channels": tuple(18 * 2**k for k in range(at)),
        }
        for at, modules in ((2, 1), (3, 4), (4, 3))
    },
}
CONTEXT = {"cfg": {"type": "ContextBlock", "ratio": 1 / 16}, "stages": (False, True, True, True)}
CONTEXT |= {"position": "after_conv3"}
PVT = {"embed_dims": 16, "num_layers": [1, 1, 2, 1], "num_heads": [1, 2, 5, 8]}
YOLOX_S = {"deepen_factor": 0.33, "widen_factor": 0.5}
ODD = ((161, 227), (192, 256))
HALVING = ((160, 224), (192, 256))
EVEN = ((162, 226), (192, 256), (224, 224))

OF_HRNET = "with `feature_location=''`; sizes are multiples of 32"

CASES = [
    case("ResNet", resnet(18), depth=18),
    case("ResNet", timm_network("resnet18", **AFTER_STEM), depth=18),
    case("ResNet", resnet(), depth=50, note="style pytorch", sizes=ODD),
    case("ResNet", resnet(stride_in_1x1=True), depth=50, style="caffe", note="style caffe", sizes=ODD),
    case(
        "ResNet",
        resnet(out=RES[:3]),
        depth=50,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(0, 1, 2),
        note="three stages",
        sizes=ODD,
    ),
    case(
        "ResNet",
        resnet(res5_dilation=2),
        depth=50,
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        note="DC5",
        sizes=ODD,
    ),
    case("ResNet", resnet(stem="deep"), depth=50, deep_stem=True, note="deep stem (v1c)", sizes=ODD),
    case("ResNet", timm_network("resnet50c", **AFTER_STEM), depth=50, deep_stem=True, note="v1c", sizes=ODD),
    case("ResNetV1d", resnet(stem="deep", shortcut="avg_pool"), depth=50, sizes=ODD),
    case("ResNetV1d", timm_network("resnet50d", **AFTER_STEM), depth=50),
    case("ResNeXt", resnet(num_groups=32, width_per_group=4), depth=50, groups=32, base_width=4, sizes=ODD),
    case("ResNeXt", timm_network("resnext50_32x4d", **AFTER_STEM), depth=50, groups=32, base_width=4, sizes=ODD),
    case("ResNet", resnet(norm="GN"), depth=50, norm_cfg=GN, note="GN", sizes=ODD),
    case(
        "ResNet",
        resnet(norm="GN", standardised=True),
        depth=50,
        norm_cfg=GN,
        conv_cfg={"type": "ConvWS"},
        note="GN+WS, with `weight_standardization=True`",
        sizes=ODD,
    ),
    case(
        "ResNet",
        resnet(norm="GN"),
        depth=50,
        norm_cfg=GN,
        conv_cfg={"type": "ConvWS"},
        refused="GN+WS without `weight_standardization=True`",
    ),
    case(
        "ResNet",
        resnet(),
        depth=50,
        plugins=[CONTEXT],
        note="with context blocks",
        refused="its context blocks (GCNet) have no place here",
    ),
    case("RegNet", timm_network("regnetx_004", **AFTER_STEM), arch="regnetx_400mf"),
    case(
        "RegNet",
        (partial(RegNet, **REGNETX_400MF, out_features=["s1", "s2", "s3", "s4"]), "RegNet"),
        arch="regnetx_400mf",
    ),
    case("ResNeSt", timm_network("resnest50d", **AFTER_STEM), depth=50, sizes=ODD),
    case(
        "Res2Net",
        timm_network("res2net50d", stride1_pool=False, **AFTER_STEM),
        depth=50,
        scales=4,
        base_width=26,
        deep_stem=True,
        avg_down=True,
        note="with `stride1_pool=False`",
        sizes=ODD,
    ),
    case(
        "Res2Net",
        timm_network("res2net50d", **AFTER_STEM),
        depth=50,
        scales=4,
        base_width=26,
        deep_stem=True,
        avg_down=True,
        refused="another pooling: take `stride1_pool=False`",
    ),
    case(
        "HRNet",
        timm_network("hrnet_w18", feature_location="", **AFTER_STEM),
        extra=HRNET,
        sizes=HALVING,
        note=OF_HRNET,
    ),
    case("Darknet", (partial(Darknet53), "Darknet53"), depth=53, sizes=ODD),
    case("SSDVGG", (SSDVGG, "SSDVGG"), depth=16, with_last_pool=False, ceil_mode=True, **SSD, sizes=ODD),
    case("MobileNetV2", timm_network("mobilenetv2_100", **AFTER_STEM), out_indices=(1, 2, 4, 6)),
    case("MobileNetV2", torchvision_network("mobilenet_v2", return_nodes=MOBILE), out_indices=(1, 2, 4, 6)),
    case(
        "EfficientNet",
        timm_network("tf_efficientnet_b0", out_indices=(0, 1, 2, 3, 4)),
        arch="b0",
        out_indices=(1, 2, 3, 4, 5),
    ),
    case(
        "SwinTransformer",
        timm_network("swin_tiny_patch4_window7_224", output_norms=True, embed_dim=24, **SWIN, **FOUR),
        sizes=WHOLE_PATCHES,
        embed_dims=24,
        **SWIN,
    ),
    case(
        "SwinTransformer",
        (partial(SwinTransformer, embed_dim=24, **SWIN), "SwinTransformer"),
        embed_dims=24,
        **SWIN,
    ),
    case(
        "PyramidVisionTransformerV2",
        timm_network("pvt_v2_b0", depths=(1, 1, 1, 1), **FOUR),
        note="its last norms have eps 1e-6 where the authors' have 1e-5",
        embed_dims=32,
        num_layers=[1, 1, 1, 1],
    ),
    case(
        "CSPNeXt",
        timm_network("cspnext_tiny", **AFTER_STEM),
        arch="P5",
        deepen_factor=0.167,
        widen_factor=0.375,
        norm_cfg=BN,
        note="with the norms of RTMDet's configs; by itself its class has eps 1e-3",
        **AFTER_STEM,
    ),
    case("CSPDarknet", (partial(CSPDarknet, **YOLOX_S), "CSPDarknet"), sizes=EVEN, note="sizes are even", **YOLOX_S),
    case(
        "CSPDarknet",
        (partial(CSPDarknet, "P6", use_depthwise=True, **YOLOX_S), "CSPDarknet('P6', use_depthwise=True)"),
        arch="P6",
        use_depthwise=True,
        sizes=EVEN,
        **YOLOX_S,
    ),
    case(
        "PyramidVisionTransformer",
        (partial(PyramidVisionTransformer, **PVT), "PyramidVisionTransformer"),
        **{**PVT, "num_heads": [1, 2, 5, 8]},
    ),
    case(
        "TridentResNet",
        resnet(out=RES[:3]),
        depth=50,
        num_branch=3,
        test_branch_idx=1,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        num_stages=3,
        trident_dilations=(1, 2, 3),
        out_indices=(2,),
        refused="three branches of dilated convolutions in its last stage",
    ),
    case(
        "DetectoRS_ResNet",
        resnet(),
        depth=50,
        conv_cfg={"type": "ConvAWS"},
        refused="convolutions of standardised weights with tables of their own, and several dilations of each",
    ),
    case(
        "DetectoRS_ResNeXt",
        resnet(num_groups=32, width_per_group=4),
        depth=50,
        groups=32,
        base_width=4,
        conv_cfg={"type": "ConvAWS"},
        refused="as DetectoRS_ResNet",
    ),
    case(
        "HourglassNet",
        resnet(),
        num_stacks=1,
        refused="a network that goes down and up again (CornerNet, CenterNet), whose one map has stride 4",
    ),
]
