"""The same ResNet-50 of everybody: frozen norms, all four maps, the stem frozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter

from benchmarks.peers import detectron2_there
from detrex_backbones import BasicStem, ResNet, make_stage

__all__ = ["NETWORKS", "detectron2s", "maps_of", "ours", "torchvisions", "with_biases"]

NETWORKS = ("R-50", "R-50-DC5")
MAPS = ["res2", "res3", "res4", "res5"]


def ours(network: str, norm: str = "FrozenBN", freeze_at: int = 1, **kwargs: Any) -> nn.Module:
    """This library's; with `norm=""` the same network without any norm, which is as fast as it can get."""
    stages = make_stage(depth=50, stride_in_1x1=False, norm=norm, res5_dilation=2 if "DC5" in network else 1)
    return ResNet(BasicStem(norm=norm), stages, out_features=MAPS, freeze_at=freeze_at, **kwargs)


def torchvisions(network: str, norm_layer: Callable[..., nn.Module] = torchvision.ops.FrozenBatchNorm2d) -> nn.Module:
    """torchvision's, as its own detectors use it."""
    dilated = [False, False, "DC5" in network]
    net = torchvision.models.resnet50(norm_layer=norm_layer, replace_stride_with_dilation=dilated)
    for module in (net.conv1, net.bn1):
        module.requires_grad_(False)
    layers = {f"layer{index - 1}": f"res{index}" for index in range(2, 6)}
    return IntermediateLayerGetter(net, return_layers=layers)


def detectron2s(network: str) -> nn.Module | None:
    """detectron2's, None where it isn't installed."""
    if not detectron2_there():
        return None
    from detectron2.modeling.backbone import BasicStem as Stem
    from detectron2.modeling.backbone import ResNet as Net

    stages = Net.make_default_stages(50, norm="FrozenBN", stride_in_1x1=False)
    if "DC5" in network:
        for block in stages[3]:
            dilate(block)
    return Net(Stem(norm="FrozenBN"), stages, out_features=MAPS, freeze_at=1)  # type: ignore[no-any-return]


def dilate(block: Any) -> None:
    """What detectron2's res5_dilation=2 does, which make_default_stages doesn't take."""
    block.stride = 1
    block.conv2.dilation = block.conv2.padding = (2, 2)
    for conv in (block.conv1, block.conv2, block.shortcut):
        if conv is not None:
            conv.stride = (1, 1)


def maps_of(net: nn.Module, images: Tensor) -> list[Tensor]:
    """The maps, in the order of the stages."""
    return list(net(images).values())


def settle(net: nn.Module, device: str, memory_format: torch.memory_format) -> nn.Module:
    """On its device, in its layout."""
    return net.to(device).to(memory_format=memory_format)  # type: ignore[call-overload, no-any-return]


def with_biases(net: nn.Module) -> nn.Module:
    """Its convolutions with biases of zero, as a fused network has some."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.bias is None:
            module.bias = nn.Parameter(torch.zeros(module.out_channels))
    return net
