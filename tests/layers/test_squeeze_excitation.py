import pytest
import torch

from detrex_backbones import SqueezeExcitation
from detrex_backbones.errors import ArgumentError
from tests.reference import noise


def test_weighs_whole_channels():
    layer = SqueezeExcitation(32, reduction=5)
    assert {name: tuple(value.shape) for name, value in layer.state_dict().items()} == {
        "fc1.weight": (6, 32, 1, 1),
        "fc1.bias": (6,),
        "fc2.weight": (32, 6, 1, 1),
        "fc2.bias": (32,),
    }
    x = noise(2, 32, 3, 5)
    weights = layer(x) / x
    assert ((weights > 0) & (weights < 1)).all()
    torch.testing.assert_close(weights, weights[:, :, :1, :1].expand_as(weights))


@pytest.mark.parametrize("reduction", [0, -1, 33])
def test_a_reduction_that_is_not_possible_is_an_error(reduction):
    with pytest.raises(ArgumentError, match=f"se_reduction={reduction!r}.*32 channels.*1 to 32"):
        SqueezeExcitation(32, reduction)
