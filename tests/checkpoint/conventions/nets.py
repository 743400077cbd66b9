"""Reference networks with random weights and statistics, ours for the same weights, and names written down by hand.

The rules here are apart from the tables under test: they go from the reference's names to those of a source.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import timm
import torch
from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.resnet import ResNet as TimmResNet
from torch import Tensor, nn

from detrex_backbones import BasicStem, DeepStem, ResNet, TimmBackbone, make_stage
from tests.reference import noise, randomise_norms, torchvision_maps

STAGES = ["res2", "res3", "res4", "res5"]
IMAGE = noise(1, 3, 65, 97)

Rules = Sequence[tuple[str, str]]

# From timm's names of a deep stem.
MMDET_STEM = [(r"^conv1\.", "stem."), (r"^bn1\.", "stem.7.")]
MMPRETRAIN_STEM = [
    (r"^conv1\.0\.", "stem.0.conv."),
    (r"^conv1\.1\.", "stem.0.bn."),
    (r"^conv1\.3\.", "stem.1.conv."),
    (r"^conv1\.4\.", "stem.1.bn."),
    (r"^conv1\.6\.", "stem.2.conv."),
    (r"^bn1\.", "stem.2.bn."),
]
# mmpretrain has no pool in the first stage's shortcut.
NO_FIRST_POOL = [
    (r"^layer1\.0\.downsample\.1\.", "layer1.0.downsample.0."),
    (r"^layer1\.0\.downsample\.2\.", "layer1.0.downsample.1."),
]
MMPRETRAIN_SE = [(r"\.se\.fc([12])\.", r".se_layer.conv\1.conv.")]

# From timm's names of a RegNet.
PYCLS = [
    (r"\.downsample\.conv\.", ".proj."),
    (r"\.downsample\.bn\.", ".bn."),
    (r"\.se\.fc1\.", ".f.se.f_ex.0."),
    (r"\.se\.fc2\.", ".f.se.f_ex.2."),
    *((rf"\.conv{k}\.conv\.", f".f.{a}.") for k, a in enumerate("abc", 1)),
    *((rf"\.conv{k}\.bn\.", f".f.{a}_bn.") for k, a in enumerate("abc", 1)),
]
# From torchvision's names of a RegNet: `trunk_output.block1.block1-0.f.a.0`.
TORCHVISION_TO_PYCLS = [
    (r"^stem\.0\.", "stem.conv."),
    (r"^stem\.1\.", "stem.bn."),
    (r"^fc\.", "head.fc."),
    (r"\.f\.([abc])\.0\.", r".f.\1."),
    (r"\.f\.([abc])\.1\.", r".f.\1_bn."),
    (r"\.proj\.0\.", ".proj."),
    (r"\.proj\.1\.", ".bn."),
]
# From torchvision's names of a ResNet, behind `shifted`.
PYCLS_RESNET = [
    (r"^conv1\.", "stem.conv."),
    (r"^bn1\.", "stem.bn."),
    (r"^fc\.", "head.fc."),
    (r"^layer(\d)\.", r"s\1."),
    *((rf"\.conv{k}\.", f".f.{a}.") for k, a in enumerate("abc", 1)),
    *((rf"\.bn{k}\.", f".f.{a}_bn.") for k, a in enumerate("abc", 1)),
    (r"\.downsample\.0\.", ".proj."),
    (r"\.downsample\.1\.", ".bn."),
]
MMDET_REGNET = [
    (r"^stem\.conv\.", "conv1."),
    (r"^stem\.bn\.", "bn1."),
    (r"^head\.fc\.", "fc."),
    (r"^s(\d)\.", r"layer\1."),
    (r"\.conv(\d)\.conv\.", r".conv\1."),
    (r"\.conv(\d)\.bn\.", r".bn\1."),
    (r"\.downsample\.conv\.", ".downsample.0."),
    (r"\.downsample\.bn\.", ".downsample.1."),
]


def rename(state: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """Every rule, one after the other, on every name."""
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    assert len(renamed) == len(state)
    return renamed


def shift(state: Mapping[str, Tensor], pattern: str, template: str, by: int) -> dict[str, Tensor]:
    """Count something from another number on: the last group of `pattern` is what is counted."""

    def replace(found: re.Match[str]) -> str:
        *others, counted = found.groups()
        return template.format(*others, int(counted) + by)

    return {re.sub(pattern, replace, name): value for name, value in state.items()}


def timm_resnet(block: type[nn.Module] = BasicBlock, layers: Sequence[int] = (2, 2, 2, 2), **kwargs: Any) -> nn.Module:
    """A ResNet of timm's parts, in evaluation mode; ResNet-18's depth unless said otherwise."""
    torch.manual_seed(0)
    return randomise_norms(TimmResNet(block, layers, num_classes=10, **kwargs)).eval()


def timm_bottleneck(**kwargs: Any) -> nn.Module:
    """timm's ResNet-26: bottleneck blocks, two a stage."""
    return timm_resnet(Bottleneck, (2, 2, 2, 2), **kwargs)


def timm_se_resnext(**kwargs: Any) -> nn.Module:
    """timm's SE-ResNeXt-26 32x4d."""
    return timm_bottleneck(cardinality=32, base_width=4, block_args={"attn_layer": "se"}, **kwargs)


def our_resnet(
    depth: int = 18, deep: int = 0, classes: int | None = None, norm: str = "FrozenBN", **kwargs: Any
) -> ResNet:
    """Ours, with nothing but NaN in it: what is not loaded shows.

    Args:
        depth: of `make_stage`, or 26: bottleneck blocks, two a stage.
        deep: channels of a deep stem, 0 for the plain one.
        classes: adds a classifier.
        norm: after every convolution.
        **kwargs: of `make_stage`.
    """
    with torch.device("meta"):
        stem = DeepStem(out_channels=deep, norm=norm) if deep else BasicStem(norm=norm)
        stages = make_stage(50 if depth == 26 else depth, norm=norm, in_channels=deep or 64, **kwargs)
        stages = [blocks[:2] for blocks in stages] if depth == 26 else stages
        maps = STAGES if classes is None else [*STAGES, "linear"]
        model = ResNet(stem, stages, num_classes=classes, out_features=maps).eval()
    model.to_empty(device="cpu")
    for value in model.state_dict().values():
        value.fill_(torch.nan)
    return model


def timm_plain(name: str, **kwargs: Any) -> nn.Module:
    """Any network of timm with its classifier, random weights and statistics; one object for the same arguments."""
    return _timm_plain(name, tuple(kwargs.items()))


@cache
def _timm_plain(name: str, kwargs: tuple[tuple[str, Any], ...]) -> nn.Module:
    torch.manual_seed(0)
    return randomise_norms(timm.create_model(name, **dict(kwargs))).eval()


def our_timm(name: str, **kwargs: Any) -> TimmBackbone:
    """The same as a backbone, with nothing but NaN in it."""
    model = copy.deepcopy(_our_timm(name, tuple(kwargs.items())))
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.fill_(torch.nan)
    return model


@cache
def _our_timm(name: str, kwargs: tuple[tuple[str, Any], ...]) -> TimmBackbone:
    return TimmBackbone(name, **dict(kwargs)).eval()


@torch.no_grad()
def maps_of(net: nn.Module, image: Tensor = IMAGE) -> dict[str, Tensor]:
    """The maps of one of our backbones, or of a ResNet of torchvision or timm under our names."""
    return net(image) if hasattr(net, "output_shape") else torchvision_maps(net, image)


@torch.no_grad()
def timm_maps(plain: nn.Module, name: str, image: Tensor = IMAGE, **kwargs: Any) -> list[Tensor]:
    """The maps of timm's own wrapper around the very modules of `plain`."""
    wrapped = copy.deepcopy(_timm_wrapped(name, tuple(kwargs.items())))
    theirs = plain.state_dict()
    state = {}
    for key in wrapped.state_dict():
        first, _, rest = key.partition(".")
        names = [key, *(f"{first[:at]}.{first[at + 1 :]}.{rest}" for at, letter in enumerate(first) if letter == "_")]
        names += [key.removeprefix(prefix) for prefix in ("model.", "body.", "graph_module.")]
        state[key] = next(theirs[found] for found in names if found in theirs)
    wrapped.load_state_dict(state)
    return wrapped.eval()(image)


@cache
def _timm_wrapped(name: str, kwargs: tuple[tuple[str, Any], ...]) -> nn.Module:
    return timm.create_model(name, features_only=True, **dict(kwargs))


def timm_features(name: str, **kwargs: Any) -> nn.Module:
    """timm's own wrapper, with nothing but NaN in it."""
    model = copy.deepcopy(_timm_wrapped(name, tuple(kwargs.items()))).eval()
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.fill_(torch.nan)
    return model
