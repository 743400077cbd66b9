import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import deform_conv2d

from detrex_backbones import BottleneckBlock, DeformBottleneckBlock
from detrex_backbones.errors import ArgumentError
from tests.reference import assert_close, noise, randomise_norms

EVERY_FORM = [
    pytest.mark.parametrize("modulated", [False, True], ids=["plain", "modulated"]),
    pytest.mark.parametrize("deform_groups", [1, 2]),
    pytest.mark.parametrize("kwargs", [{}, {"dilation": 2}, {"stride": 2, "num_groups": 4}], ids=str),
]


def every_form(test):
    for mark in EVERY_FORM:
        test = mark(test)
    return test


def deform_block(modulated: bool, deform_groups: int, norm="BN", **kwargs) -> DeformBottleneckBlock:
    torch.manual_seed(0)
    block = DeformBottleneckBlock(
        16,
        32,
        bottleneck_channels=8,
        norm=norm,
        deform_modulated=modulated,
        deform_num_groups=deform_groups,
        **kwargs,
    )
    return randomise_norms(block).eval()


@pytest.fixture(scope="module")
def x():
    return noise(2, 16, 9, 11)


@every_form
def test_a_fresh_one_equals_the_plain_block_or_halves_what_it_samples(kwargs, deform_groups, modulated, x):
    block = deform_block(modulated, deform_groups, **kwargs)
    plain = BottleneckBlock(16, 32, bottleneck_channels=8, **kwargs).eval()
    plain.load_state_dict({name: value for name, value in block.state_dict().items() if "offset" not in name})
    if modulated:
        with torch.no_grad():
            plain.conv2.weight.mul_(0.5)  # the sigmoid of zero
    assert_close(block(x), plain(x), 1e-6)


@every_form
def test_samples_at_the_offsets_as_torchvision_does(kwargs, deform_groups, modulated, x):
    block = deform_block(modulated, deform_groups, **kwargs)
    torch.nn.init.normal_(block.conv2_offset.weight, std=0.3)
    torch.nn.init.normal_(block.conv2_offset.bias)
    with torch.no_grad():
        middle = F.relu(block.conv1(x))
        offset, mask = block.conv2_offset(middle), None
        if modulated:
            offset, mask = offset[:, : 18 * deform_groups], offset[:, 18 * deform_groups :].sigmoid()
        conv = block.conv2
        middle = deform_conv2d(
            middle, offset, conv.weight, None, conv.stride, padding=conv.padding, dilation=conv.dilation, mask=mask
        )
        expected = F.relu(block.conv3(F.relu(conv.norm(middle))) + block.shortcut(x))
        assert_close(block(x), expected, 1e-6)


@every_form
def test_the_offsets_learn(kwargs, deform_groups, modulated, x):
    block = deform_block(modulated, deform_groups, **kwargs)
    # Away from whole pixels, where the gradient of bilinear sampling has two values.
    torch.nn.init.constant_(block.conv2_offset.bias, 0.3)
    block(x).sum().backward()
    assert block.conv2_offset.weight.grad.any()
    assert block.conv2_offset.bias.grad.all()


def test_runs_in_bfloat16(x):
    block = deform_block(True, 1)
    expected = block(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(block(x), expected, 0.02)
    assert_close(block.bfloat16()(x.bfloat16()), expected, 0.02)


@pytest.mark.parametrize("groups", [0, 3, 16])
def test_groups_that_do_not_divide_the_width_are_an_error(groups):
    with pytest.raises(ArgumentError, match=f"deform_num_groups={groups}.*bottleneck_channels=8"):
        deform_block(False, groups)
