"""Norms of timm's and torchvision's networks are folded where that is certain, and the maps stay the same."""

import logging

import pytest
import torch
from torch import nn

from detrex_backbones import Backbone, Conv2d, FeatureExtractor, SimpleFeaturePyramid, TimmBackbone, TorchvisionBackbone
from detrex_backbones.errors import ArgumentError
from detrex_backbones.layers.fuse import loose_norms
from tests.reference import assert_same_maps, noise, randomise_norms

# Family -> how many norms it has, and how many of them follow no convolution: those of branches and before activations.
FAMILIES = {
    "resnet14t": (19, 0),
    "skresnet18": (36, 0),
    "resnest14d": (23, 0),
    "mobilenetv3_small_050": (34, 0),
    "tf_mobilenetv3_small_minimal_100": (34, 0),  # pads its convolutions itself
    "hgnetv2_b0": (42, 0),
    "cs3darknet_focus_s": (31, 0),
    "starnet_s050": (17, 0),
    "ghostnet_050": (63, 1),
    "repvgg_a0": (61, 17),
    "resnetv2_18": (16, 8),
    "convnext_atto": (0, 0),
}


def check(net, images=None):
    """How many norms there were, and how many are left."""
    net = randomise_norms(net).eval()
    images = noise(2, 3, 96, 128) if images is None else images
    with torch.no_grad():
        before = net(images)
        count = len(loose_norms(net))
        assert net.fuse() is net
        assert_same_maps(net(images), before, 1e-4)
    return count, len(loose_norms(net))


@pytest.mark.few(3)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family(name, caplog):
    torch.manual_seed(0)
    with caplog.at_level(logging.WARNING):
        assert check(TimmBackbone(name, out_indices=None)) == FAMILIES[name]
    left = FAMILIES[name][1]
    assert (f"{left} batch norms are not fused" in caplog.text) == (left > 0)


@pytest.mark.parametrize("kwargs", [{"norm_layer": "FrozenBN"}, {"freeze_at": 2}, {"feature_cls": "fx"}])
def test_frozen_norms_and_other_wrappers(kwargs):
    torch.manual_seed(0)
    count, left = check(TimmBackbone("resnet14t", **kwargs))
    assert count and not left


def test_norms_that_somebody_hooks_stay():
    torch.manual_seed(0)
    net = TimmBackbone("resnet14t", out_indices=(0, 1))
    next(part for part in net.modules() if part in loose_norms(net)).register_forward_hook(lambda *args: None)
    assert check(net)[1] == 1


@pytest.mark.parametrize(
    ("name", "nodes"), [("resnet18", ["layer1", "layer4"]), ("regnet_y_400mf", ["trunk_output.block2"])]
)
@pytest.mark.parametrize("norm", [None, "FrozenBN"])
def test_torchvisions_networks(name, nodes, norm):
    torch.manual_seed(0)
    count, left = check(TorchvisionBackbone(name, return_nodes=nodes, norm_layer=norm))
    assert count and not left


def test_a_pyramid_over_them():
    torch.manual_seed(0)
    net = SimpleFeaturePyramid(TimmBackbone("resnet14t", out_indices=(3,)), "p3", 16, (2.0, 1.0), norm="BN")
    assert check(net) == (15, 0)


def test_a_network_of_one_size_and_other_channels():
    torch.manual_seed(0)
    net = TimmBackbone("botnet26t_256", in_channels=5, out_indices=(1, 3), img_size=(64, 96))
    assert check(net, noise(1, 5, *net._example_size())) == (24, 1)  # of the attention


class Picky(Backbone):
    """Takes large images alone."""

    def __init__(self):
        super().__init__()
        self.ours = Conv2d(3, 4, 1, norm=nn.BatchNorm2d(4))
        self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        if x.shape[2] < 500:
            raise ValueError("too small")
        return {"map": self.norm(self.conv(self.ours(x)))}


def test_a_network_that_cannot_run_noise_has_our_own_norms_folded(caplog):
    net = Picky().eval()
    with caplog.at_level(logging.WARNING):
        net.fuse()
    assert "too small" in caplog.text and "1 batch norms are not fused" in caplog.text
    assert net.ours.norm is None and net.conv.bias is not None and loose_norms(net) == [net.norm]


def test_norms_that_learn_are_refused_and_their_statistics_stay():
    net = TimmBackbone("resnet14t", out_indices=(0,))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ArgumentError, match=r"in training mode.*Call eval\(\)"):
        net.fuse()
    assert list(net.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_an_extractor_of_another_projects_backbone():
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.bottom_up = Conv2d(3, 4, 1, norm=nn.BatchNorm2d(4))

    net = FeatureExtractor(Other(), [1.0], [1.0]).eval()
    assert net.fuse().backbone.bottom_up.norm is None


def test_the_whole_extractor():
    torch.manual_seed(0)
    backbone = TimmBackbone("resnet14t", out_indices=(3,))
    net = FeatureExtractor(backbone, [1.0, 2.0, 3.0], [10.0, 20.0, 30.0])
    assert check(net, noise(2, 3, 64, 96).abs() * 60) == (15, 0)
