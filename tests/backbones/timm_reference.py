"""timm's ResNets with random weights, and ours with the same ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.models.resnet import Bottleneck
from timm.models.resnet import ResNet as TimmResNet
from torch import Tensor, nn

from detrex_backbones import BasicStem, ResNet, make_stage
from tests.reference import MAPS, assert_same_maps, randomise_norms, torchvision_maps

# timm's parameter names -> ours. Which number a shortcut's parts have depends on the shortcut: see `to_our_names`.
RULES = [
    (r"^fc\.", "linear."),
    (r"^layer1\.", "res2."),
    (r"^layer2\.", "res3."),
    (r"^layer3\.", "res4."),
    (r"^layer4\.", "res5."),
    (r"\.bn([123])\.", r".conv\1.norm."),
]
BASIC_STEM = [(r"^conv1\.", "stem.conv1."), (r"^bn1\.", "stem.conv1.norm.")]
DEEP_STEM = [
    (r"^conv1\.0\.", "stem.conv1."),
    (r"^conv1\.1\.", "stem.conv1.norm."),
    (r"^conv1\.3\.", "stem.conv2."),
    (r"^conv1\.4\.", "stem.conv2.norm."),
    (r"^conv1\.6\.", "stem.conv3."),
    (r"^bn1\.", "stem.conv3.norm."),
]


def to_our_names(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a ResNet of timm, or of Gluon's ports, under our parameter names."""
    rules = [*(DEEP_STEM if "conv1.0.weight" in state_dict else BASIC_STEM), *RULES]
    renamed = {}
    for name, value in state_dict.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        if match := re.search(r"\.downsample\.(\d)\.", name):
            # The convolution has the one weight of four dimensions; what follows it is the norm.
            weight = next(v for n, v in state_dict.items() if n.endswith(f"downsample.{match[1]}.weight"))
            name = name.replace(match[0], ".shortcut." if weight.dim() == 4 else ".shortcut.norm.")
        renamed[name] = value
    return renamed


def timm_net(
    block: type[nn.Module] = Bottleneck, layers: Sequence[int] = (3, 4, 6, 3), num_classes: int = 10, **kwargs: Any
) -> nn.Module:
    """A ResNet of timm's parts with random weights and random statistics, in evaluation mode."""
    torch.manual_seed(0)
    return randomise_norms(TimmResNet(block, layers, num_classes=num_classes, **kwargs)).eval()


def our_net(
    theirs: nn.Module,
    stem: Callable[..., nn.Module] = BasicStem,
    stages: Sequence[Any] | None = None,
    norm: str = "FrozenBN",
    **kwargs: Any,
) -> ResNet:
    """Our ResNet with the weights of one of timm's.

    Args:
        theirs: timm's.
        stem: makes ours, for a norm.
        stages: of ours; None: `make_stage(norm=norm, **kwargs)`.
        norm: of ours.
        **kwargs: of `make_stage`.
    """
    with torch.device("meta"):  # without weights of its own, as they would be thrown away
        stages = make_stage(norm=norm, **kwargs) if stages is None else stages
        ours = ResNet(stem(norm=norm), stages, num_classes=theirs.num_classes, out_features=MAPS)
    return with_weights_of(theirs, ours)


def with_weights_of(theirs: nn.Module, ours: ResNet) -> ResNet:
    """Put every weight of timm's into ours; a name or a shape that doesn't fit is an error."""
    ours.load_state_dict(to_our_names(theirs.state_dict()), strict=True, assign=True)
    return ours.eval()


@torch.no_grad()
def assert_equal_nets(ours: ResNet, theirs: nn.Module, images: Tensor) -> None:
    """Every map and the class scores agree."""
    assert_same_maps(ours(images), torchvision_maps(theirs, images))


def without_pool_in_layer4(theirs: nn.Module) -> nn.Module:
    """Leave out the pool of layer4's shortcut: timm pools at stride 1 there with DC5, Gluon does not."""
    theirs.layer4[0].downsample[0] = nn.Identity()
    return theirs
