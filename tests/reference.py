"""Somebody else's networks with the same weights: what our numbers are proved against."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from detrex_backbones import BasicStem, ResNet, make_stage

TOLERANCE = 1e-5  # of float32 on a CPU, over the deepest network

MAPS = ["stem", "res2", "res3", "res4", "res5", "linear"]

# torchvision's module that gives the map -> our name of the map.
TORCHVISION_MAPS = {"maxpool": "stem", "layer1": "res2", "layer2": "res3", "layer3": "res4", "layer4": "res5"}

# torchvision's parameter names -> ours.
TORCHVISION_RULES = [
    (r"^conv1\.", "stem.conv1."),
    (r"^bn1\.", "stem.conv1.norm."),
    (r"^fc\.", "linear."),
    (r"^layer1\.", "res2."),
    (r"^layer2\.", "res3."),
    (r"^layer3\.", "res4."),
    (r"^layer4\.", "res5."),
    (r"\.bn([123])\.", r".conv\1.norm."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
]


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Normal noise that is the same in every run."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    """`||ours - theirs|| / ||theirs||` is at most `tolerance`."""
    assert ours.shape == theirs.shape
    ours, theirs = ours.detach().double(), theirs.detach().double()
    difference = ((ours - theirs).norm() / theirs.norm()).item()
    assert difference <= tolerance, f"relative difference {difference:.2e}"


def assert_same_maps(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float = TOLERANCE) -> None:
    """The same names, and `assert_close` for each of them."""
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        assert_close(value, theirs[name], tolerance)


def randomise_norms(net: nn.Module, seed: int = 0, low: float = 0.5, high: float = 1.5) -> nn.Module:
    """Give every batch norm random statistics and weights: fresh, they are ones and zeros that hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if not isinstance(module, _BatchNorm):
                continue
            if module.running_mean is not None:
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(low, high, generator=generator)
            if module.weight is not None:
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.1, generator=generator)
    return net


def randomise_parameters(net: nn.Module, seed: int = 0) -> nn.Module:
    """Random values in every parameter and batch norm, in place: fresh factors, tables and offsets hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            values = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() < 2:
                parameter += 0.2 * values
            else:
                parameter.copy_(values * max(parameter[0].numel(), 1) ** -0.5)
    return randomise_norms(net, seed)


def renamed(state_dict: dict[str, Tensor], rules: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """The state dict under other names: each rule is a pattern and what takes its place, one after the other."""
    result = {}
    for name, value in state_dict.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        result[name] = value
    return result


def torchvision_net(name: str, **kwargs: Any) -> nn.Module:
    """A torchvision network with random weights and random statistics, in evaluation mode."""
    torch.manual_seed(0)
    return randomise_norms(getattr(torchvision.models, name)(**kwargs)).eval()


def torchvision_maps(net: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Every map of a torchvision network, and its class scores, under our names."""
    maps: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, args, output: maps.__setitem__(name, output)

    handles = [net.get_submodule(theirs).register_forward_hook(keep(ours)) for theirs, ours in TORCHVISION_MAPS.items()]
    maps["linear"] = net(images)
    for handle in handles:
        handle.remove()
    return maps


def to_our_names(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """A torchvision ResNet's state dict under our parameter names."""
    return renamed(state_dict, TORCHVISION_RULES)


def our_net(net: nn.Module, norm: str = "FrozenBN", stages: Sequence[Any] | None = None, **kwargs: Any) -> ResNet:
    """Our ResNet with the weights of a torchvision network.

    Args:
        net: the torchvision network.
        norm: of ours.
        stages: of ours; None: `make_stage(norm=norm, **kwargs)`.
        **kwargs: of `make_stage`.
    """
    # Without weights of its own: that would take longer than all the rest.
    with torch.device("meta"):
        stages = make_stage(norm=norm, **kwargs) if stages is None else stages
        ours = ResNet(BasicStem(norm=norm), stages, num_classes=net.fc.out_features, out_features=MAPS)
    ours.load_state_dict(to_our_names(net.state_dict()), strict=True, assign=True)
    return ours.eval()


def dilate_by_hand(net: nn.Module, first: int) -> nn.Module:
    """Make a torchvision network DC5: layer4 has no stride, its 3x3 convolutions are dilated.

    Args:
        net: the network.
        first: dilation of the first block; that of the others is 2.
    """
    for index, block in enumerate(net.layer4):
        dilation = first if index == 0 else 2
        for conv in (module for module in block.modules() if isinstance(module, nn.Conv2d)):
            conv.stride = (1, 1)
            if conv.kernel_size == (3, 3):
                conv.dilation = conv.padding = (dilation, dilation)
    return net


def strides_into_1x1(net: nn.Module) -> nn.Module:
    """Move the strides of a torchvision network's bottleneck blocks from the 3x3 to the first 1x1 convolution."""
    for layer in (net.layer2, net.layer3, net.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    return net
