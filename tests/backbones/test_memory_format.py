"""Large batches run with channels last on a CPU: the same numbers, in the layout that is faster."""

import pytest
import torch

from detrex_backbones.backbones import memory_format
from tests.reference import assert_same_maps, noise, our_net, torchvision_maps, torchvision_net

LAST = {"memory_format": torch.channels_last}

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@pytest.fixture
def net():
    return our_net(torchvision_net("resnet18"), depth=18)


def are_last(maps) -> set[bool]:
    return {value.is_contiguous(**LAST) for name, value in maps.items() if name != "linear"}


def test_above_a_number_of_pixels_maps_are_channels_last_and_torchvisions(net, monkeypatch):
    images = noise(2, 3, 67, 97)
    expected = torchvision_maps(torchvision_net("resnet18"), images)
    for limit, last in ((2 * 67 * 97, True), (2 * 67 * 97 + 1, False)):
        monkeypatch.setattr(memory_format, "PIXELS", limit)
        with torch.no_grad():
            maps = net(images)
        assert are_last(maps) == {last}
        assert_same_maps(maps, expected)
    assert images.is_contiguous()


def test_gradients_are_the_same(net, monkeypatch):
    gradients = []
    for limit in (1, 10**9):
        monkeypatch.setattr(memory_format, "PIXELS", limit)
        net.zero_grad()
        sum(value.square().mean() for value in net(noise(2, 3, 64, 64)).values()).backward()
        gradients.append({name: value.grad.clone() for name, value in net.named_parameters()})
    assert_same_maps(*gradients)


def test_the_user_s_own_layout_stays(net):
    images = noise(1, 3, 64, 64)
    assert are_last(net(images)) == {False}
    assert are_last(net.to(**LAST)(images.to(**LAST))) == {True}


def test_what_is_exported_has_no_layout_of_ours(net, monkeypatch):
    monkeypatch.setattr(memory_format, "PIXELS", 1)
    program = torch.export.export(net, (noise(1, 3, 64, 64),))
    assert not any(node.kwargs.get("memory_format") for node in program.graph.nodes)
