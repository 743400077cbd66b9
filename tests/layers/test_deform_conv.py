import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from detrex_backbones.layers.deform_conv import DeformConv2d
from tests.reference import assert_close, noise, randomise_norms


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("deform_groups", [1, 2])
@pytest.mark.parametrize(
    "kwargs", [{"padding": 1}, {"padding": 2, "dilation": 2}, {"padding": 1, "stride": 2, "groups": 4, "bias": False}]
)
def test_equals_torchvisions_given_the_same_offsets(kwargs, deform_groups, modulated):
    ours, theirs = DeformConv2d(8, 8, 3, **kwargs), torchvision.ops.DeformConv2d(8, 8, 3, **kwargs)
    theirs.load_state_dict(ours.state_dict())
    x = noise(2, 8, 9, 11)
    height, width = F.conv2d(x, theirs.weight, None, ours.stride, ours.padding, ours.dilation, ours.groups).shape[2:]
    offset = noise(2, 2 * deform_groups * 9, height, width, seed=1)
    mask = noise(2, deform_groups * 9, height, width, seed=2).sigmoid() if modulated else None
    assert_close(ours(x, offset, mask), theirs(x, offset, mask), 1e-6)


def test_whole_pixel_offsets_sample_shifted_pixels():
    conv = DeformConv2d(4, 4, 3, padding=1)
    x = noise(1, 4, 9, 11)
    offset = torch.tensor([1.0, -2.0]).repeat(9).reshape(1, 18, 1, 1).expand(-1, -1, 9, 11)  # y, x of each sample
    # One row down and two columns to the left, with one more on each side for the 3x3.
    shifted = F.pad(x, (3, 3, 3, 3))[..., 3:14, 0:13]
    assert_close(conv(x, offset), F.conv2d(shifted, conv.weight, conv.bias), 1e-6)


def test_norm_comes_before_activation():
    conv = DeformConv2d(4, 4, 3, padding=1, bias=False, norm=randomise_norms(nn.BatchNorm2d(4)), activation=F.relu)
    conv.eval()
    x = noise(1, 4, 9, 11)
    expected = F.relu(conv.norm(F.conv2d(x, conv.weight, padding=1)))
    assert_close(conv(x, torch.zeros(1, 18, 9, 11)), expected, 1e-6)
