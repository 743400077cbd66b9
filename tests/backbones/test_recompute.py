"""Activation checkpointing: the same numbers, and less kept in between."""

import copy

import pytest
import torch

from detrex_backbones import BasicStem, ResNet, make_stage
from detrex_backbones.errors import ArgumentError
from tests.reference import assert_same_maps, noise, randomise_norms


def resnet(checkpoint_stages, norm: str = "FrozenBN", **kwargs) -> ResNet:
    torch.manual_seed(0)
    net = ResNet(
        BasicStem(norm=norm),
        make_stage(depth=18, norm=norm),
        out_features=["res2", "res5"],
        checkpoint_stages=checkpoint_stages,
        **kwargs,
    )
    return randomise_norms(net)


def step(net: ResNet) -> dict[str, torch.Tensor]:
    maps = net(noise(2, 3, 64, 96))
    sum(value.square().mean() for value in maps.values()).backward()
    return maps


@pytest.mark.parametrize("norm", ["FrozenBN", "BN", "GN"])
@pytest.mark.parametrize("stages", [True, ["res2", "res3"]])
@pytest.mark.parametrize("freeze_at", [0, 1, 3])
def test_maps_gradients_and_statistics_are_the_same(stages, norm, freeze_at):
    plain, saving = (resnet(value, norm, freeze_at=freeze_at) for value in (False, stages))
    assert_same_maps(step(saving), step(plain), 0)
    for (name, one), other in zip(saving.named_parameters(), plain.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        assert one.grad is None or torch.equal(one.grad, other.grad), name
    for (name, one), other in zip(saving.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(one, other), name


def kept(net: torch.nn.Module, image: torch.Tensor | None = None) -> int:
    """Bytes that the forward pass keeps for the backward one, parameters left out."""
    own = {value.untyped_storage().data_ptr() for value in net.state_dict().values()}
    seen: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        maps = net(noise(1, 3, 128, 128) if image is None else image)
    del maps
    return sum(seen.values())


def test_less_is_kept_the_more_stages_are_named():
    none, one, every = (kept(resnet(stages)) for stages in (False, ["res2"], True))
    assert every < one < none
    assert every < none / 2


def test_in_evaluation_nothing_changes():
    plain, saving = (resnet(value, "BN").eval() for value in (False, True))
    with torch.no_grad():
        assert_same_maps(saving(noise(1, 3, 64, 64)), plain(noise(1, 3, 64, 64)), 0)


def test_a_copy_saves_too():
    net = copy.deepcopy(resnet(["res3"]))
    assert net.checkpoint_stages == ("res3",)


@pytest.mark.parametrize("stages", ["res2", ["res6"], ["stem"], ["res2", "layer1"]])
def test_stages_that_are_not_there(stages):
    with pytest.raises(ArgumentError, match=r"checkpoint_stages=.*a list of the stages .*: res2, res3, res4, res5\."):
        resnet(stages)


def test_a_stage_that_is_left_out_of_the_network_can_not_be_named():
    with pytest.raises(ArgumentError, match=r"has: res2\."):
        ResNet(BasicStem(), make_stage(depth=18), out_features=["res2"], checkpoint_stages=["res3"])
