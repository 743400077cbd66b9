"""Encoders of segmentation-models-pytorch, at their own size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from benchmarks.peer_files.case import Case, timm_network, torchvision_network
from detrex_backbones import BasicStem, ResNet, make_stage

__all__ = ["CASES"]

STAGES = ["res2", "res3", "res4", "res5"]
NODES = {f"layer{k}": f"res{k + 1}" for k in (1, 2, 3, 4)}
FOUR = {"out_indices": (1, 2, 3, 4)}
FIVE = {"out_indices": (0, 1, 2, 3, 4)}


def encoder(name: str) -> nn.Module:
    """One of them, without weights."""
    import segmentation_models_pytorch as smp

    made: nn.Module = smp.encoders.get_encoder(name, weights=None)
    return made


def maps(skipped: int, net: nn.Module, image: Tensor) -> Sequence[Tensor]:
    """Those that it gives, without the first ones: the image itself, and the stem's."""
    found: Sequence[Tensor] = net(image)[skipped:]
    return found


def case(name: str, network: tuple[Callable[[], nn.Module], str], skipped: int = 2, **more: Any) -> Case:
    """A row."""
    sizes = {"sizes": ((192, 256), (160, 224)), "prefix": "encoder.", **more}
    return Case("segmentation-models-pytorch", name, partial(encoder, name), *network, partial(maps, skipped), **sizes)


def behind_stages(net: Any, image: Tensor) -> Sequence[Tensor]:
    """The maps of EfficientNet-B0 behind its stages of strides 4 to 32."""
    x, found = net._swish(net._bn0(net._conv_stem(image))), []
    for index, block in enumerate(net._blocks):
        x = block(x)
        found += [x] if index in (2, 4, 10, 15) else []
    return found


def resnet(depth: int, **stages: Any) -> tuple[Callable[[], nn.Module], str]:
    """This library's."""
    return (
        lambda: ResNet(BasicStem(norm="BN"), make_stage(depth, norm="BN", **stages), out_features=STAGES),
        f"ResNet with make_stage({depth})",
    )


CASES = [
    case("resnet34", resnet(34)),
    case("resnet34", torchvision_network("resnet34", return_nodes=NODES)),
    case("resnext50_32x4d", resnet(50, num_groups=32, width_per_group=4)),
    case("se_resnet50", timm_network("legacy_seresnet50", **FOUR)),
    case("se_resnext50_32x4d", timm_network("legacy_seresnext50_32x4d", **FOUR)),
    replace(
        case("efficientnet-b0", timm_network("tf_efficientnet_b0", **FOUR)),
        maps=behind_stages,
        note="behind the last block of each stage: its own map of stride 16 is behind the first of three blocks. "
        "Pads as for 224 pixels",
    ),
    case(
        "mobilenet_v2",
        torchvision_network("mobilenet_v2", return_nodes={f"features.{k}": f"p{k}" for k in (3, 6, 13, 18)}),
        note="its last map is behind the classifier's convolution, which timm's network leaves out",
    ),
    case("vgg16_bn", timm_network("vgg16_bn", out_indices=(0, 1, 2, 3, 4, 5)), skipped=0),
    case("timm-efficientnet-b0", timm_network("efficientnet_b0", **FOUR), note="its first map is the stem's"),
    case(
        "mobileone_s0",
        timm_network("mobileone_s0", **FIVE),
        skipped=1,
        refused="names of its authors', which timm's network doesn't read",
    ),
    case("mit_b0", timm_network("pvt_v2_b0"), refused="SegFormer's encoder is in none of the libraries"),
]
