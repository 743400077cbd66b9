"""Our FPN of torchvision's names against torchvision's, and what torchvision's detectors ask of it."""

import pytest
import torch
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.resnet import resnet18
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool as TheirMaxPool
from torchvision.ops.feature_pyramid_network import LastLevelP6P7 as TheirP6P7

from detrex_backbones import (
    BasicStem,
    LastLevelMaxPool,
    LastLevelP6P7,
    ResNet,
    TimmBackbone,
    TorchvisionFPN,
    load_checkpoint,
    make_stage,
)
from detrex_backbones.errors import ArgumentError
from tests.reference import assert_close, noise


def net(**stages):
    features = ["res2", "res3", "res4", "res5"]
    return ResNet(BasicStem(norm="BN"), make_stage(18, norm="BN", **stages), out_features=features)


@pytest.mark.parametrize("top", ["pool", "p6p7"])
def test_the_maps_are_torchvisions(top, tmp_path):
    torch.manual_seed(0)
    theirs = BackboneWithFPN(
        resnet18(weights=None),
        {f"layer{index}": str(index) for index in range(1, 5)},
        [64, 128, 256, 512],
        64,
        TheirMaxPool() if top == "pool" else TheirP6P7(512, 64),
    ).eval()
    ours = TorchvisionFPN(
        net(), out_channels=64, top_block=LastLevelMaxPool() if top == "pool" else LastLevelP6P7(512, 64)
    ).eval()
    torch.save(theirs.body.state_dict(), tmp_path / "body.pth")
    load_checkpoint(ours.bottom_up, tmp_path / "body.pth")
    ours.fpn.load_state_dict(
        {key: value for key, value in theirs.fpn.state_dict().items() if not key.startswith("extra_blocks")}
    )
    if top == "p6p7":
        ours.top_block.load_state_dict(theirs.fpn.extra_blocks.state_dict())
    image = noise(2, 3, 96, 128)
    with torch.no_grad():
        wanted, got = list(theirs(image).values()), ours(image)
    assert list(got) == ["p2", "p3", "p4", "p5", "p6", "p7"][: 5 if top == "pool" else 6]
    if top == "p6p7":  # theirs is made of p5's input, the network's own map
        assert ours.top_block.in_feature == "res5"
    for one, other in zip(got.values(), wanted, strict=True):
        assert_close(one, other)
    shapes = ours.output_shape()
    assert ours.out_channels == 64 and all(shape.channels == 64 for shape in shapes.values())
    assert [shape.stride for shape in shapes.values()] == [4, 8, 16, 32, 64, 128][: len(shapes)]
    assert [value.shape[-1] for value in got.values()] == [-(-128 // shape.stride) for shape in shapes.values()]


def test_a_network_of_equal_strides():
    shapes = TorchvisionFPN(net(res5_dilation=1), in_features=["res4", "res5"], out_channels=32).output_shape()
    assert {name: shape.stride for name, shape in shapes.items()} == {"p4": 16, "p5": 32}
    deep = ResNet(BasicStem(), make_stage(50, res5_dilation=2), out_features=["res4", "res5"])
    fpn = TorchvisionFPN(deep, out_channels=32).eval()
    assert {name: shape.stride for name, shape in fpn.output_shape().items()} == {"p4": 16, "p5": 16}
    assert [value.shape[-1] for value in fpn(torch.zeros(1, 3, 64, 64)).values()] == [4, 4]


def test_bgr_turns_the_channels_round():
    torch.manual_seed(0)
    fpn = TorchvisionFPN(net(), ["res5"], 32).eval()
    image = noise(1, 3, 64, 64)
    straight = fpn(image)["p5"]
    fpn.input_format = "BGR"
    assert_close(fpn(image.flip(1))["p5"], straight)
    assert (fpn(image)["p5"] - straight).abs().max() > 1e-3


def test_a_name_that_network_and_pyramid_share():
    timm = TimmBackbone("convnext_zepto_rms", out_indices=(1, 2, 3))  # p1, p2, p3
    channels = timm.output_shape()["p3"].channels
    image = torch.zeros(1, 3, 64, 64)
    maps = TorchvisionFPN(timm, out_channels=32, top_block=LastLevelP6P7(channels, 32, "p3")).eval()(image)
    assert [value.shape[-1] for value in maps.values()] == [8, 4, 2, 1, 1]
    maps = TorchvisionFPN(timm, out_channels=32, top_block=LastLevelMaxPool("p3")).eval()(image)
    assert maps["p6"].shape == (1, 32, 4, 4)  # every second pixel of the pyramid's finest map


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_features": ["res6"]}, "Did you mean"),
        ({"in_features": []}, "at least one name"),
        ({"in_features": ["res4", "res3"]}, r"from fine to coarse.*\[16, 8\]"),
        ({"input_format": "GBR"}, "Allowed: 'RGB', 'BGR'"),
        ({"top_block": torch.nn.Identity()}, "num_levels"),
        ({"top_block": LastLevelMaxPool("p9")}, "'p9'"),
        ({"norm": "XN"}, "norm='XN'"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        TorchvisionFPN(net(), **{"out_channels": 32, **arguments})
