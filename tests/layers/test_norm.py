import pytest
import timm.layers
import torch
from torch import nn

from detrex_backbones import FrozenBatchNorm2d, get_norm
from detrex_backbones.errors import ArgumentError
from detrex_backbones.layers import LayerNorm2d
from tests.reference import assert_close, noise


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("BN", nn.BatchNorm2d),
        ("SyncBN", nn.SyncBatchNorm),
        ("FrozenBN", FrozenBatchNorm2d),
        ("GN", nn.GroupNorm),
        ("LN", LayerNorm2d),
    ],
)
def test_every_name_gives_its_layer_for_the_channels(name, layer):
    norm = get_norm(name, 64)
    assert type(norm) is layer
    assert norm.weight.shape == (64,)


def test_group_norm_has_32_groups():
    assert get_norm("GN", 96).num_groups == 32


@pytest.mark.parametrize("norm", ["", None])
def test_nothing_gives_nothing(norm):
    assert get_norm(norm, 64) is None


def test_a_class_and_a_callable_get_the_channels():
    assert get_norm(nn.InstanceNorm2d, 64).num_features == 64
    norm = get_norm(lambda channels: nn.GroupNorm(channels // 4, channels), 64)
    assert (norm.num_groups, norm.num_channels) == (16, 64)


def test_an_unknown_name_lists_the_allowed_ones_and_suggests_the_nearest():
    with pytest.raises(ArgumentError) as error:
        get_norm("FrozenBn", 64)
    message = str(error.value)
    assert "norm='FrozenBn'" in message
    assert all(repr(name) in message for name in ("BN", "SyncBN", "FrozenBN", "GN", "LN"))
    assert "Did you mean 'FrozenBN'" in message


@pytest.mark.parametrize("norm", [32, True, ["BN"]])
def test_neither_a_name_nor_a_callable_is_an_error(norm):
    with pytest.raises(ArgumentError, match="Allowed"):
        get_norm(norm, 64)


def test_a_callable_that_returns_no_module_is_an_error():
    with pytest.raises(ArgumentError, match="returned a str for 64 channels"):
        get_norm(lambda channels: "BN", 64)


def test_channels_that_32_groups_do_not_divide_are_an_error():
    with pytest.raises(ArgumentError, match=r"32 groups.*48 channels"):
        get_norm("GN", 48)


def test_layer_norm_equals_timms():
    ours, theirs = LayerNorm2d(12), timm.layers.LayerNorm2d(12)
    with torch.no_grad():
        theirs.weight.copy_(noise(12))
        theirs.bias.copy_(noise(12, seed=1))
    ours.load_state_dict(theirs.state_dict())
    x = noise(2, 12, 5, 7) * 1e-3  # small, so that eps counts
    assert_close(ours(x), theirs(x), 1e-6)
