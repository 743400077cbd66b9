import logging

import pytest
import torch
from torch import nn

from detrex_backbones import (
    BasicStem,
    Conv2d,
    Darknet53,
    FrozenBatchNorm2d,
    ResNet,
    fuse_norms,
    make_stage,
)
from detrex_backbones.errors import ArgumentError
from tests.layers.test_fold import conv, randomise
from tests.reference import assert_close, assert_same_maps, noise, our_net, randomise_norms, torchvision_net
from tests.reference import torchvision_maps as maps_of


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
@pytest.mark.parametrize("name, kwargs", [("resnet18", {"depth": 18}), ("resnet50", {"depth": 50})])
def test_a_fused_network_computes_torchvisions_maps(name, kwargs, norm):
    theirs = torchvision_net(name)
    ours = our_net(theirs, norm=norm, **kwargs)
    assert ours.fuse() is ours
    assert not [key for key in ours.state_dict() if "norm" in key]
    with torch.no_grad():
        assert_same_maps(ours(noise(2, 3, 65, 97)), maps_of(theirs, noise(2, 3, 65, 97)))


def test_other_backbones_fuse_as_well():
    torch.manual_seed(0)
    net = randomise_norms(Darknet53()).eval()
    with torch.no_grad():
        before = net(noise(1, 3, 64, 64))
        assert_same_maps(net.fuse()(noise(1, 3, 64, 64)), before)


def test_deformable_stages_fuse_as_well():
    torch.manual_seed(0)
    stages = make_stage(depth=50, norm="FrozenBN", deform_on_per_stage=[False, True, True, False])
    net = randomise(ResNet(BasicStem(norm="FrozenBN"), stages, out_features=["res4"]))
    with torch.no_grad():
        before = net(noise(1, 3, 64, 64))
        assert_same_maps(net.fuse()(noise(1, 3, 64, 64)), before)


def test_a_bias_is_kept_and_what_learned_still_learns():
    net, x = conv(), noise(1, 4, 5, 5)
    net.bias.data.fill_(0.7)
    net.requires_grad_(False)
    expected = net(x)
    fuse_norms(net)
    assert net.norm is None
    assert_close(net(x), expected, 1e-6)
    assert not any(parameter.requires_grad for parameter in net.parameters())
    learning = fuse_norms(conv())
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in learning.parameters())


def test_a_batch_norm_that_learns_is_refused_and_nothing_is_changed():
    net = nn.Sequential(conv(), Conv2d(6, 6, 1, norm=nn.BatchNorm2d(6)))
    before = list(net.state_dict())
    with pytest.raises(ArgumentError, match=r"1 batch norm is in training mode, '1.norm' for one.*Call eval\(\)"):
        fuse_norms(net)
    assert list(net.state_dict()) == before
    fuse_norms(net.eval())
    assert list(net.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_other_norms_stay():
    net = ResNet(BasicStem(norm="GN"), make_stage(depth=18, norm="GN")).eval()
    before = list(net.state_dict())
    assert list(net.fuse().state_dict()) == before


def test_batch_norms_that_need_images_are_told_of(caplog):
    net = nn.Sequential(conv(), nn.Conv2d(6, 6, 1), FrozenBatchNorm2d(6))
    with caplog.at_level(logging.WARNING):
        fuse_norms(net)
    assert net[0].norm is None
    assert "1 batch norms are not fused: give images to find their convolutions" in caplog.text


def test_fusing_twice_changes_nothing_more():
    net = fuse_norms(conv())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fuse_norms(net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
