"""Our ResNets against torchvision's, given the same random weights and statistics."""

import pytest
import torch
from torch import nn

from detrex_backbones import ResNet
from tests.reference import (
    assert_close,
    assert_same_maps,
    dilate_by_hand,
    noise,
    our_net,
    strides_into_1x1,
    to_our_names,
    torchvision_maps,
    torchvision_net,
)

FAMILY = {
    "resnet18": {"depth": 18},
    "resnet34": {"depth": 34},
    "resnet50": {"depth": 50},
    "resnet101": {"depth": 101},
    "resnet152": {"depth": 152},
    "resnext50_32x4d": {"depth": 50, "num_groups": 32, "width_per_group": 4},
    "resnext101_32x8d": {"depth": 101, "num_groups": 32, "width_per_group": 8},
    "resnext101_64x4d": {"depth": 101, "num_groups": 64, "width_per_group": 4},
    "wide_resnet50_2": {"depth": 50, "width_per_group": 128},
    "wide_resnet101_2": {"depth": 101, "width_per_group": 128},
}


@pytest.fixture(scope="module")
def images():
    return noise(1, 3, 97, 131)


@torch.no_grad()
def assert_equal_nets(ours: ResNet, theirs: nn.Module, images: torch.Tensor) -> None:
    assert_same_maps(ours(images), torchvision_maps(theirs, images))


@pytest.mark.few(1)
@pytest.mark.parametrize("name", FAMILY)
def test_every_map_and_the_scores_equal_torchvisions(name, images):
    theirs = torchvision_net(name)
    assert_equal_nets(our_net(theirs, **FAMILY[name]), theirs, images)


@pytest.mark.parametrize("norm", ["BN", "SyncBN"])
def test_other_batch_norms_equal_torchvisions_too(norm, images):
    theirs = torchvision_net("resnet18")
    ours = our_net(theirs, norm=norm, depth=18)
    assert not any(type(module).__name__ == "FrozenBatchNorm2d" for module in ours.modules())
    assert_equal_nets(ours, theirs, images)


@pytest.mark.parametrize(("name", "depth"), [("resnet34", 34), ("resnet50", 50)])
def test_default_stages_equal_torchvisions(name, depth, images):
    theirs = torchvision_net(name)
    with torch.device("meta"):
        stages = ResNet.make_default_stages(depth, norm="FrozenBN")
    assert_equal_nets(our_net(theirs, stages=stages), theirs, images)


def stages_both_ways(depth: int, **kwargs) -> list:
    with torch.device("meta"):
        return [None, ResNet.make_default_stages(depth, norm="FrozenBN", **kwargs)]


def test_dc5_in_torchvisions_way_equals_its_replaced_stride(images):
    theirs = torchvision_net("resnet50", replace_stride_with_dilation=[False, False, True])
    kwargs = {"res5_dilation": 2, "dilation_style": "torchvision"}
    for stages in stages_both_ways(50, **kwargs):
        assert_equal_nets(our_net(theirs, stages=stages, depth=50, **kwargs), theirs, images)


@pytest.mark.parametrize(("style", "first"), [("detectron2", 2), ("torchvision", 1)])
@pytest.mark.parametrize(("name", "depth"), [("resnet18", 18), ("resnet34", 34), ("resnet50", 50)])
def test_dc5_equals_torchvisions_net_dilated_by_hand(name, depth, style, first, images):
    theirs = dilate_by_hand(torchvision_net(name), first=first)
    kwargs = {"res5_dilation": 2, "dilation_style": style}
    for stages in stages_both_ways(depth, **kwargs):
        assert_equal_nets(our_net(theirs, stages=stages, depth=depth, **kwargs), theirs, images)


@pytest.mark.parametrize(("name", "depth"), [("resnet18", 18), ("resnet50", 50)])
def test_the_two_ways_of_dc5_differ_in_res5_alone(name, depth, images):
    theirs = torchvision_net(name)
    with torch.no_grad():
        default, detectron2, torchvision = (
            our_net(theirs, depth=depth, res5_dilation=2, **kwargs)(images)
            for kwargs in ({}, {"dilation_style": "detectron2"}, {"dilation_style": "torchvision"})
        )
    assert torch.equal(default["res5"], detectron2["res5"])
    assert torch.equal(detectron2["res4"], torchvision["res4"])
    assert detectron2["res5"].shape == torchvision["res5"].shape
    with pytest.raises(AssertionError, match="relative difference"):
        assert_close(detectron2["res5"], torchvision["res5"], 0.01)


def test_stride_in_1x1_equals_torchvisions_net_with_the_strides_moved(images):
    theirs = strides_into_1x1(torchvision_net("resnet50"))
    for stages in stages_both_ways(50, stride_in_1x1=True):
        assert_equal_nets(our_net(theirs, stages=stages, depth=50, stride_in_1x1=True), theirs, images)


@pytest.mark.few(1)
@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
@pytest.mark.parametrize(("name", "depth"), [("resnet18", 18), ("resnet50", 50)])
def test_gradients_equal_torchvisions(name, depth, norm):
    # In float64: what differs is then the formula, not the rounding.
    theirs = torchvision_net(name, num_classes=5).double()
    ours = our_net(theirs, norm=norm, depth=depth)
    inputs = [noise(1, 3, 65, 97).double().requires_grad_() for _ in range(2)]
    for maps in (ours(inputs[0]), torchvision_maps(theirs, inputs[1])):
        sum((value * noise(*value.shape)).sum() / value.numel() for value in maps.values()).backward()
    assert_close(inputs[0].grad, inputs[1].grad, 1e-9)
    gradients = to_our_names({name: parameter.grad for name, parameter in theirs.named_parameters()})
    if norm == "FrozenBN":
        gradients = {name: value for name, value in gradients.items() if ".norm." not in name}
    assert_same_maps({name: parameter.grad for name, parameter in ours.named_parameters()}, gradients, 1e-9)
