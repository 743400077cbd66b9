"""InternImage's operator against loops over places and groups, and what the network's arguments do."""

import logging
import math

import pytest
import torch
from torch import nn

from detrex_backbones import InternImage
from detrex_backbones.backbones.dcn_v3 import sample_and_sum
from detrex_backbones.errors import ArgumentError
from tests.reference import assert_close, noise

SMALL = {"channels": 16, "depths": (1, 2, 2, 1), "groups": (1, 2, 4, 8)}


def value_at(image, row, column):
    """Bilinear between the four entries around; zero beyond the border."""
    total = torch.zeros(image.shape[-1], dtype=image.dtype)
    for y in (math.floor(row), math.floor(row) + 1):
        for x in (math.floor(column), math.floor(column) + 1):
            if 0 <= y < image.shape[0] and 0 <= x < image.shape[1]:
                total += image[y, x] * (1 - abs(row - y)) * (1 - abs(column - x))
    return total


def by_loops(values, offsets, weights, scale):
    """DCNv3 as its paper says it (Wang et al. 2023, equation 2), entry by entry."""
    batch, height, width, channels = values.shape
    group = weights.shape[3]
    wide = channels // group
    result = torch.zeros_like(values)
    for n in range(batch):
        for y in range(height):
            for x in range(width):
                for g in range(group):
                    image = values[n, :, :, g * wide : (g + 1) * wide]
                    for place, (right, down) in enumerate((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
                        more_right, more_down = offsets[n, y, x, g, place].tolist()
                        sampled = value_at(image, y + scale * (down + more_down), x + scale * (right + more_right))
                        result[n, y, x, g * wide : (g + 1) * wide] += weights[n, y, x, g, place] * sampled
    return result


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_the_operator_is_that_of_the_paper(scale):
    values, offsets = noise(2, 5, 7, 6).double(), noise(2, 5, 7, 3, 9, 2, seed=1).double()
    weights = noise(2, 5, 7, 3, 9, seed=2).double()
    assert_close(sample_and_sum(values, offsets, weights, scale), by_loops(values, offsets, weights, scale), 1e-12)


def test_the_gradients_of_the_operator_are_those_of_its_values():
    inputs = [noise(1, 3, 4, 4), noise(1, 3, 4, 2, 9, 2, seed=1), noise(1, 3, 4, 2, 9, seed=2)]
    inputs = [value.double().requires_grad_() for value in inputs]
    assert torch.autograd.gradcheck(lambda *given: sample_and_sum(*given, 1.5), inputs)


def test_fresh_weights_are_the_authors():
    net = InternImage(**SMALL, post_norm=True)
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear):
            assert not module.bias.any()
            if name.endswith(("offset", "mask")):
                assert not module.weight.any()
            elif name.endswith("_proj"):
                assert module.weight.abs().max() <= (3 / module.in_features) ** 0.5  # Glorot's bounds for a square
            else:
                assert module.weight.std().item() == pytest.approx(0.02, rel=0.3)


def test_drop_path_may_be_the_same_everywhere():
    rates = [
        [block.drop_path.rate for level in InternImage(**SMALL, drop_path_type=kind).levels for block in level.blocks]
        for kind in ("linear", "uniform")
    ]
    assert rates[0] == pytest.approx([0.04 * index for index in range(6)])
    assert rates[1] == [0.2] * 6


def test_computing_blocks_again_changes_no_gradient():
    nets = [InternImage(**SMALL, drop_path_rate=0.0, norm_layer="BN", with_cp=again) for again in (False, True)]
    nets[1].load_state_dict(nets[0].state_dict())
    for net in nets:
        sum(value.square().mean() for value in net(noise(2, 3, 64, 64)).values()).backward()
    for (name, one), (_, other) in zip(*(net.named_parameters() for net in nets), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)
    for (name, one), (_, other) in zip(*(net.named_buffers() for net in nets), strict=True):
        torch.testing.assert_close(one, other, msg=name)


def test_what_detrex_swallows_is_said(caplog):
    with caplog.at_level(logging.WARNING, "detrex_backbones"):
        InternImage(**SMALL, cls_scale=1.5)
    assert "cls_scale" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"core_op": "DCNv4"}, "core_op='DCNv4'.*'DCNv3'"),
        ({"act_layer": "gelu"}, "act_layer='gelu'.*'ReLU', 'SiLU', 'GELU'"),
        ({"norm_layer": "GN"}, "norm_layer='GN'.*'LN', 'BN'"),
        ({"drop_path_type": "random"}, "'linear', 'uniform'"),
        ({"groups": (3, 2, 4, 8)}, "groups: 3 doesn't divide the 16 channels"),
        ({"groups": (1, 2)}, r"groups=\[1, 2\]"),
    ],
)
def test_what_it_cannot_be_made_of(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        InternImage(**{**SMALL, **arguments})
