"""Norms of timm's and torchvision's networks are folded where that is certain, and the maps stay the same."""

import logging

import pytest
import torch

from detrex_backbones import FeatureExtractor, SimpleFeaturePyramid, TimmBackbone, TorchvisionBackbone
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


def test_the_whole_extractor():
    torch.manual_seed(0)
    backbone = TimmBackbone("resnet14t", out_indices=(3,))
    net = FeatureExtractor(backbone, [1.0, 2.0, 3.0], [10.0, 20.0, 30.0])
    assert check(net, noise(2, 3, 64, 96).abs() * 60) == (15, 0)
