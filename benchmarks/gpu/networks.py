"""The same network of everybody: ResNet-50, its DC5 form, Swin-T and ConvNeXt-T, each with four maps.

ResNets have frozen norms and a frozen stem. Swin-T and ConvNeXt-T train whole; stochastic depth is off, as it draws
random numbers and leaves out work. detectron2's Swin has a norm on each map besides, and it has no ConvNeXt.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import timm
import torchvision
from torch import Tensor, nn

from benchmarks.networks import detectron2s, ours, torchvisions, with_biases
from benchmarks.peers import detectron2_there
from detrex_backbones import TimmBackbone, fuse_norms

__all__ = ["NETWORKS", "PEERS", "SIZES", "makers"]

RESNETS = ("R-50", "R-50-DC5")
TIMMS = {"Swin-T": "swin_tiny_patch4_window7_224", "ConvNeXt-T": "convnext_tiny"}
NETWORKS = (*RESNETS, *TIMMS)
PEERS = ("torchvision", "timm", "detectron2")
# Patches of 4 pixels don't cut 1333: those who can't pad it themselves get what a detector pads to.
SIZES = {"Swin-T": (800, 1344), "ConvNeXt-T": (800, 1344)}

Makers = dict[str, Callable[[], nn.Module]]


class Maps(nn.Module):
    """torchvision's network as its four maps, (N, C, H, W).

    Args:
        features: a sequence of layers.
        after: behind which of them a map is taken.
        channels_last: whether the layers work on (N, H, W, C).
    """

    def __init__(self, features: nn.Sequential, after: tuple[int, ...], *, channels_last: bool) -> None:
        super().__init__()
        self.features = features
        self.after = after
        self.channels_last = channels_last

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = {}
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.after:
                maps[f"p{len(maps)}"] = x.permute(0, 3, 1, 2) if self.channels_last else x
        return maps


class Named(nn.Module):
    """timm's network, whose maps are a list, with names for them."""

    def __init__(self, net: nn.Module, *, channels_last: bool = False) -> None:
        super().__init__()
        self.net = net
        self.channels_last = channels_last

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = [value.permute(0, 3, 1, 2) if self.channels_last else value for value in self.net(x)]
        return {f"p{index}": value for index, value in enumerate(maps)}


def makers(network: str, *, training: bool) -> Makers:
    """Name -> what builds it, of this library ("ours"), the peers, and what it can't be faster than ("no norms").

    For inference "fused" besides: ours with its norms folded for good.
    """
    return _resnets(network, training=training) if network in RESNETS else _timms(network)


def _resnets(network: str, *, training: bool) -> Makers:
    made: Makers = {
        "ours": functools.partial(ours, network),
        "torchvision": functools.partial(torchvisions, network),
        "timm": functools.partial(_timm_resnet, network),
    }
    if detectron2_there():
        made["detectron2"] = functools.partial(detectron2s, network)  # type: ignore[arg-type]
    if training:
        made["no norms"] = functools.partial(ours, network, norm="")
    else:
        made["fused"] = lambda: fuse_norms(ours(network))
        made["no norms"] = lambda: with_biases(ours(network, norm=""))
    return made


def _timm_resnet(network: str) -> nn.Module:
    stride = 16 if "DC5" in network else 32
    net = timm.create_model("resnet50", features_only=True, out_indices=(1, 2, 3, 4), output_stride=stride)
    net = timm.layers.freeze_batch_norm_2d(net)
    net.conv1.requires_grad_(False)
    return Named(net)


def _timms(network: str) -> Makers:
    name, swin = TIMMS[network], network == "Swin-T"
    made: Makers = {
        "ours": lambda: TimmBackbone(name),
        "torchvision": functools.partial(_torchvision, network),
        "timm": lambda: Named(
            timm.create_model(name, features_only=True, **({"strict_img_size": False} if swin else {})),
            channels_last=swin,
        ),
    }
    if swin and detectron2_there():
        made["detectron2"] = _detectron2_swin
    return made


def _torchvision(network: str) -> nn.Module:
    swin = network == "Swin-T"
    net = torchvision.models.swin_t() if swin else torchvision.models.convnext_tiny()
    for module in net.modules():
        if isinstance(module, torchvision.ops.StochasticDepth):
            module.p = 0.0
    return Maps(net.features, (1, 3, 5, 7), channels_last=swin)


def _detectron2_swin() -> nn.Module:
    from detectron2.modeling.backbone.swin import SwinTransformer

    return SwinTransformer(  # type: ignore[no-any-return]
        embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], drop_path_rate=0.0
    )
