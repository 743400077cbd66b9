"""The neck of detrex: by hand, and beside detrex's own where there is one."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detrex_backbones import ChannelMapper, ShapeSpec
from detrex_backbones.errors import ArgumentError
from tests.interop.theirs import need_detrex
from tests.reference import assert_close, noise

SHAPES = {"res3": ShapeSpec(channels=8), "res4": ShapeSpec(channels=16), "res5": ShapeSpec(channels=32)}


def maps():
    return {"res3": noise(2, 8, 13, 9), "res4": noise(2, 16, 7, 5), "res5": noise(2, 32, 4, 3)}


@torch.no_grad()
def test_by_hand():
    neck = ChannelMapper(SHAPES, list(SHAPES), 16, 1, norm_layer=nn.GroupNorm(4, 16), num_outs=5).eval()
    state = {name: torch.randn_like(value) for name, value in neck.state_dict().items()}
    neck.load_state_dict(state)

    def layer(x, name, **kwargs):
        x = F.conv2d(x, state[f"{name}.conv.weight"], state[f"{name}.conv.bias"], **kwargs)
        return F.group_norm(x, 4, state[f"{name}.norm.weight"], state[f"{name}.norm.bias"])

    given = maps()
    expected = [layer(value, f"convs.{index}") for index, value in enumerate(given.values())]
    expected.append(layer(given["res5"], "extra_convs.0", stride=2, padding=1))
    expected.append(layer(expected[-1], "extra_convs.1", stride=2, padding=1))
    for one, other in zip(neck(given), expected, strict=True):
        assert_close(one, other)


def test_norms_are_copies_and_maps_that_are_not_asked_for_are_left_alone():
    neck = ChannelMapper(SHAPES, ["res4"], 16, norm_layer=nn.GroupNorm(4, 16), num_outs=2)
    assert neck.convs[0].norm is not neck.extra_convs[0].norm
    assert [tuple(value.shape) for value in neck(maps())] == [(2, 16, 7, 5), (2, 16, 4, 3)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"in_features": ["res6"]}, "Did you mean 'res"), ({"num_outs": 2}, "num_outs=2, but .* are 3 already")],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        ChannelMapper(**{"input_shapes": SHAPES, "in_features": list(SHAPES), "out_channels": 16, **arguments})


@torch.no_grad()
@pytest.mark.parametrize(
    "arguments",
    [
        {"num_outs": 4, "kernel_size": 1, "norm_layer": nn.GroupNorm(4, 16)},
        {"num_outs": 5, "stride": 2, "bias": False, "activation": nn.ReLU()},
        {"in_features": ["res4", "res5"], "groups": 2, "dilation": 2},
        {"in_features": ["res4", "res5"], "num_outs": 2},
    ],
    ids=str,
)
def test_names_and_maps_are_detrexs(arguments):
    need_detrex()
    import detrex.modeling.neck as theirs_module

    arguments = {"input_shapes": SHAPES, "in_features": list(SHAPES), "out_channels": 16, **arguments}
    theirs, ours = theirs_module.ChannelMapper(**arguments), ChannelMapper(**arguments)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict(), strict=True)
    given = {name: value for name, value in maps().items() if name in arguments["in_features"]}
    for one, other in zip(ours(given), theirs(given), strict=True):
        assert_close(one, other)
