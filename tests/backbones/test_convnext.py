"""ConvNeXt against timm's with the same weights, and what its arguments do."""

import pytest
import timm.models.convnext
import torch
import torch.nn.functional as F
from torch import nn

from detrex_backbones import ConvNeXt
from detrex_backbones.errors import ArgumentError
from tests.reference import assert_close, noise, randomise_parameters, renamed

SMALL = {"depths": [1, 2, 1, 1], "dims": [16, 24, 32, 48]}

FROM_TIMM = [
    (r"^stem\.", "downsample_layers.0."),
    (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
    (r"^stages\.(\d)\.blocks\.", r"stages.\1."),
    (r"\.conv_dw\.", ".dwconv."),
    (r"\.mlp\.fc", ".pwconv"),
]


@pytest.fixture(scope="module")
def pair():
    theirs = timm.models.convnext.ConvNeXt(depths=SMALL["depths"], dims=SMALL["dims"])
    randomise_parameters(theirs).eval()
    ours = randomise_parameters(ConvNeXt(**SMALL), seed=1).eval()
    weights = renamed(theirs.state_dict(), FROM_TIMM)
    left = ours.load_state_dict({k: v for k, v in weights.items() if not k.startswith("head")}, strict=False)
    assert not left.unexpected_keys and all(key.startswith("norm") for key in left.missing_keys)
    return ours, theirs


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (33, 130)])
def test_the_maps_are_timms_behind_a_norm(pair, size):
    ours, theirs = pair
    images = noise(2, 3, *size)
    with torch.no_grad():
        maps = ours(images)
        for index, wanted in enumerate(theirs.forward_intermediates(images, indices=4, intermediates_only=True)):
            norm = ours.get_submodule(f"norm{index}")
            last = F.layer_norm(wanted.permute(0, 2, 3, 1), norm.weight.shape, norm.weight, norm.bias, 1e-6)
            assert_close(maps[f"p{index}"], last.permute(0, 3, 1, 2))


def test_fresh_weights_are_the_authors():
    net = ConvNeXt(**SMALL)
    linear = torch.cat([module.weight.flatten() for module in net.modules() if isinstance(module, nn.Linear)])
    assert linear.std().item() == pytest.approx(0.02, rel=0.05)
    assert all((block.gamma == 1e-6).all() for stage in net.stages for block in stage)
    assert not any(module.bias.any() for module in net.modules() if isinstance(module, nn.Linear))
    assert not any("gamma" in key for key in ConvNeXt(**SMALL, layer_scale_init_value=0).state_dict())


def test_frozen_stages_take_what_comes_before_them_along():
    net = ConvNeXt(**SMALL, frozen_stages=2)
    learning = {name for name, value in net.named_parameters() if value.requires_grad}
    frozen = ("stages.0", "stages.1", "downsample_layers.0", "downsample_layers.1")
    assert not any(name.startswith(frozen) for name in learning)
    assert {"stages.2.0.gamma", "downsample_layers.2.1.weight", "norm0.weight"} <= learning


def test_drop_path_grows_to_the_last_block():
    rates = [block.drop_path.rate for stage in ConvNeXt(**SMALL, drop_path_rate=0.4).stages for block in stage]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out_indices": [1, 4]}, r"out_indices=\[1, 4\].*\[0, 1, 2, 3\]"),
        ({"out_indices": [1, 1]}, "twice"),
        ({"out_indices": []}, "at least one"),
        ({"frozen_stages": 5}, "frozen_stages=5.*-1.*to 4"),
        ({"dims": [8, 16]}, r"dims=\[8, 16\]"),
        ({"drop_path_rate": 1.5}, "drop_path_rate=1.5.*from 0 to 1"),
    ],
)
def test_what_it_cannot_be_made_of(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        ConvNeXt(**{**SMALL, **arguments})
