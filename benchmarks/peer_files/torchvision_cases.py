"""The backbones and pyramids of torchvision's detectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from benchmarks.peer_files.case import Case, timm_network, torchvision_network
from detrex_backbones import (
    BasicStem,
    LastLevelMaxPool,
    LastLevelP6P7,
    ResNet,
    TorchvisionFPN,
    make_stage,
)

__all__ = ["CASES"]

ODD = ((161, 227), (192, 256), (224, 224))
STAGES = ["res2", "res3", "res4", "res5"]
NODES = {f"layer{k}": f"res{k + 1}" for k in (1, 2, 3, 4)}
SWIN_NODES = {f"features.{2 * k + 1}": f"p{k}" for k in range(4)}


def detector(name: str) -> nn.Module:
    """One of torchvision's detectors, without weights."""
    from torchvision.models import detection

    made: nn.Module = getattr(detection, name)(weights=None, weights_backbone=None)
    return made


def body(name: str) -> nn.Module:
    """The network under a detector's pyramid."""
    return detector(name).backbone.body  # type: ignore[return-value, union-attr]


def backbone(name: str) -> nn.Module:
    """It with its pyramid."""
    return detector(name).backbone  # type: ignore[return-value]


def maps(net: nn.Module, image: Tensor) -> Sequence[Tensor]:
    """Those that it gives."""
    return list(net(image).values())


def channels_last_maps(net: nn.Module, image: Tensor) -> Sequence[Tensor]:
    """Those of a transformer."""
    return [value.permute(0, 3, 1, 2) for value in net(image).values()]


def ours(top: Callable[[], nn.Module], names: Sequence[str] = STAGES, norm: str = "") -> nn.Module:
    """This library's pyramid of torchvision's names."""
    net = ResNet(BasicStem(norm="BN"), make_stage(50, norm="BN"), out_features=STAGES)
    return TorchvisionFPN(net, names, norm=norm, top_block=top())


class Held(nn.Module):
    """A network under the name that a detector has for it, which its file's names count on."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Any:
        """The network's maps."""
        return self.backbone(x)


def state(net: nn.Module) -> Mapping[str, Tensor]:
    """That of a detector's file."""
    return {name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")}


def case(name: str, build: Callable[[str], nn.Module], network: Any, prefix: str, **more: Any) -> Case:
    """A row."""
    own = {"sizes": ODD, **more}
    return Case("torchvision", name, partial(build, name), *network, maps, state, prefix=prefix, **own)


def classifier(name: str) -> nn.Module:
    """One of torchvision's networks."""
    from torchvision import models

    made: nn.Module = getattr(models, name)(weights=None)
    return made


def of_classifier(name: str, nodes: Mapping[str, str], network: Any, maps: Any = maps, **more: Any) -> Case:
    """A row of a network by itself, whose maps are those of torchvision's feature extraction."""
    from torchvision.models.feature_extraction import create_feature_extractor

    def extracted(net: nn.Module, image: Tensor) -> Sequence[Tensor]:
        found: Sequence[Tensor] = maps(create_feature_extractor(net, dict(nodes)), image)
        return found

    ours, called = network
    own = {"prefix": "", "sizes": ODD, **more}
    return Case("torchvision", name, partial(classifier, name), ours, called, extracted, **own)


TORCHVISION_SWIN = torchvision_network("swin_t", return_nodes=SWIN_NODES)
MOBILE_V3 = {"features.13": "p4", "features.16": "p5"}
POOL = (partial(ours, LastLevelMaxPool), "TorchvisionFPN")
NORMED_POOL = (partial(ours, LastLevelMaxPool, norm="BN"), "TorchvisionFPN(norm='BN')")
P6P7 = (lambda: Held(ours(partial(LastLevelP6P7, 2048, 256), STAGES[1:])), "TorchvisionFPN")
P6P7_OF_P5 = (lambda: Held(ours(partial(LastLevelP6P7, 256, 256, "p5"), STAGES[1:])), "TorchvisionFPN")
RESNET = (lambda: ResNet(BasicStem(norm="BN"), make_stage(50, norm="BN"), out_features=STAGES), "ResNet")

CASES = [
    case("fasterrcnn_resnet50_fpn", body, RESNET, "backbone.body."),
    case("fasterrcnn_resnet50_fpn", body, torchvision_network("resnet50", return_nodes=NODES), "backbone.body."),
    case("fasterrcnn_resnet50_fpn", body, timm_network("resnet50", out_indices=(1, 2, 3, 4)), "backbone.body."),
    case("fasterrcnn_resnet50_fpn", backbone, POOL, "backbone."),
    case("fasterrcnn_resnet50_fpn_v2", backbone, NORMED_POOL, "backbone."),
    case("retinanet_resnet50_fpn", backbone, P6P7_OF_P5, "backbone.", note="p6 is made of p5, as in its files"),
    case("retinanet_resnet50_fpn_v2", backbone, P6P7, "backbone."),
    case(
        "fasterrcnn_mobilenet_v3_large_fpn",
        body,
        torchvision_network("mobilenet_v3_large", return_nodes=MOBILE_V3, norm_layer=nn.BatchNorm2d),
        "backbone.body.",
        note="with `norm_layer`, whose eps is 1e-5 as the detector's",
    ),
    of_classifier(
        "swin_t", SWIN_NODES, torchvision_network("swin_t", return_nodes=SWIN_NODES), maps=channels_last_maps
    ),
    of_classifier(
        "mobilenet_v2",
        {"features.3": "p1", "features.6": "p2", "features.13": "p3", "features.17": "p4"},
        timm_network("mobilenetv2_100", out_indices=(1, 2, 3, 4)),
    ),
]
