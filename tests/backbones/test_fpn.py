"""The FPN of detectron2's names: beside torchvision's pyramid, and beside detectron2's class where there is one."""

import pytest
import torch
from torch import nn

from detrex_backbones import (
    FPN,
    BasicStem,
    LastLevelMaxPool,
    LastLevelP6P7,
    ResNet,
    TimmBackbone,
    TorchvisionFPN,
    make_stage,
)
from detrex_backbones.errors import ArgumentError
from tests.backbones.contract import BackboneContract, backbone, maps  # noqa: F401 (fixtures)
from tests.reference import assert_close, assert_same_maps, noise, randomise_norms


def net(*names):
    stages = make_stage(18, norm="BN")
    return ResNet(BasicStem(norm="BN"), stages, out_features=names or ["res2", "res3", "res4", "res5"])


BUILDS = {
    "pool": lambda: FPN(net(), out_channels=32, top_block=LastLevelMaxPool()),
    "p6p7": lambda: FPN(net("res3", "res4", "res5"), ["res4", "res5"], 32, "GN", LastLevelP6P7(512, 32)),
    "avg": lambda: FPN(net(), out_channels=32, fuse_type="avg", square_pad=64),
}


@pytest.fixture(scope="class")
def images():
    return noise(2, 3, 64, 128)


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS, scope="class")
class TestContract(BackboneContract):
    pass


def test_what_it_says_of_itself():
    fpn = FPN(net(), out_channels=32, top_block=LastLevelMaxPool(), square_pad=1024)
    assert {name: (shape.channels, shape.stride) for name, shape in fpn.output_shape().items()} == {
        f"p{level}": (32, 2**level) for level in range(2, 7)
    }
    assert (fpn.size_divisibility, fpn.padding_constraints) == (32, {"square_size": 1024})
    own = [name for name in fpn.state_dict() if not name.startswith("bottom_up.")]
    assert own == [
        f"fpn_{kind}{level}.{leaf}"
        for level in range(2, 6)
        for kind in ("lateral", "output")
        for leaf in ("weight", "bias")
    ]


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 128), (97, 75)])
def test_the_maps_are_those_of_torchvisions_names(size):
    """Also where a map isn't twice the one above it, which detectron2's refuses."""
    theirs = TorchvisionFPN(net(), out_channels=32, top_block=LastLevelMaxPool()).eval()
    ours = FPN(net(), out_channels=32, top_block=LastLevelMaxPool()).eval()
    state = {}
    for name, value in theirs.state_dict().items():
        for kind, layers in (("lateral", "fpn.inner_blocks."), ("output", "fpn.layer_blocks.")):
            if name.startswith(layers):
                index, _, leaf = name.removeprefix(layers).split(".")
                name = f"fpn_{kind}{int(index) + 2}.{leaf}"
        state[name] = value
    ours.load_state_dict(state, strict=True)
    assert_same_maps(ours(noise(1, 3, *size)), theirs(noise(1, 3, *size)), 1e-6)


@torch.no_grad()
def test_avg_is_the_mean_of_both():
    fpn = FPN(net(), ["res4", "res5"], 32, fuse_type="avg").eval()
    image = noise(1, 3, 64, 96)
    below = fpn.bottom_up(image)
    above = nn.functional.interpolate(fpn.fpn_lateral5(below["res5"]), scale_factor=2.0)
    assert_close(fpn(image)["p4"], fpn.fpn_output4((fpn.fpn_lateral4(below["res4"]) + above) / 2), 1e-6)


@torch.no_grad()
def test_a_name_that_network_and_pyramid_share():
    timm = TimmBackbone("convnext_zepto_rms", out_indices=(1, 2, 3))  # p1, p2, p3
    given = FPN(timm, out_channels=32, top_block=LastLevelMaxPool("p3")).eval()(torch.zeros(1, 3, 64, 64))
    assert given["p6"].shape == (1, 32, 4, 4)  # every second pixel of the pyramid's finest map


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_features": ["res6"]}, "Did you mean"),
        ({"in_features": []}, "at least one name"),
        ({"in_features": ["res4", "res3"]}, r"from fine to coarse.*\[16, 8\]"),
        ({"in_features": ["res3", "res5"]}, r"double.*\[8, 32\]"),
        ({"fuse_type": "mean"}, "Allowed: 'sum', 'avg'"),
        ({"top_block": nn.Identity()}, "num_levels"),
        ({"top_block": LastLevelMaxPool("p9")}, "'p9'"),
        ({"norm": "XN"}, "norm='XN'"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        FPN(net(), **{"out_channels": 32, **arguments})


def test_dc5_is_sent_to_the_one_that_takes_it():
    deep = ResNet(BasicStem(), make_stage(50, res5_dilation=2), out_features=["res4", "res5"])
    with pytest.raises(ArgumentError, match=r"\[16, 16\].*TorchvisionFPN"):
        FPN(deep, out_channels=32)


@torch.no_grad()
@pytest.mark.parametrize(
    ("features", "norm", "top", "fuse_type"),
    [
        (["res2", "res3", "res4", "res5"], "", "pool", "sum"),
        (["res3", "res4", "res5"], "GN", "p6p7", "avg"),
        (["res4", "res5"], "LN", None, "sum"),
    ],
)
def test_names_and_maps_are_detectron2s(features, norm, top, fuse_type):
    pytest.importorskip("detectron2.modeling", reason="detectron2 is not importable", exc_type=ImportError)
    from detectron2.modeling.backbone import fpn as theirs_module

    def tops(module):
        return {"pool": module.LastLevelMaxPool, "p6p7": lambda: module.LastLevelP6P7(512, 32), None: lambda: None}

    import detrex_backbones

    torch.manual_seed(0)
    bottom_up = randomise_norms(net())
    theirs = theirs_module.FPN(bottom_up, features, 32, norm, tops(theirs_module)[top](), fuse_type, 512).eval()
    ours = FPN(net(), features, 32, norm, tops(detrex_backbones)[top](), fuse_type, 512).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict(), strict=True)
    image = noise(1, 3, 96, 160)
    assert_same_maps(ours(image), theirs(image), 1e-6)
    assert list(ours(image)) == list(theirs(image)) == list(ours.output_shape())
    assert (ours.size_divisibility, ours.padding_constraints) == (theirs.size_divisibility, theirs.padding_constraints)
    for name, shape in theirs.output_shape().items():
        assert (shape.channels, shape.stride) == (ours.output_shape()[name].channels, ours.output_shape()[name].stride)
