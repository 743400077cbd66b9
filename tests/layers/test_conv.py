import torch
import torch.nn.functional as F
from torch import nn

from detrex_backbones import Conv2d, fuse_norms
from tests.reference import assert_close, noise, randomise_norms


def test_parameter_names_are_detectron2s():
    conv = Conv2d(3, 8, 3, norm=nn.BatchNorm2d(8), activation=nn.ReLU())
    assert [name for name, _ in conv.named_parameters()] == ["weight", "bias", "norm.weight", "norm.bias"]


def test_without_norm_and_activation_is_torchs():
    conv = Conv2d(4, 8, 3, stride=2, padding=2, dilation=2, groups=2)
    x = noise(2, 4, 9, 11)
    expected = F.conv2d(x, conv.weight, conv.bias, stride=2, padding=2, dilation=2, groups=2)
    assert torch.equal(conv(x), expected)
    assert list(conv.state_dict()) == ["weight", "bias"]


def test_norm_comes_before_activation():
    conv = Conv2d(3, 8, 3, bias=False, norm=randomise_norms(nn.BatchNorm2d(8)), activation=F.relu).eval()
    x = noise(2, 3, 9, 11)
    assert_close(conv(x), F.relu(conv.norm(F.conv2d(x, conv.weight))), 0)


def test_weights_start_with_the_msra_fan_out_deviation_and_biases_at_zero():
    torch.manual_seed(0)
    conv = Conv2d(64, 256, 3)
    expected = (2 / (256 * 3 * 3)) ** 0.5  # He et al. 2015, equation 14
    assert abs(conv.weight.std().item() / expected - 1) < 0.01
    assert abs(conv.weight.mean().item()) < expected / 100
    assert not conv.bias.any()


def test_standardised_weights_have_mean_0_and_deviation_1_in_each_filter():
    conv = Conv2d(4, 6, 3, bias=False)
    conv.weight_standardization = True
    filters = [(one - one.mean()) / (one.var(unbiased=True).sqrt() + 1e-5) for one in conv.weight.detach()]
    x = noise(2, 4, 9, 11)
    assert_close(conv(x), F.conv2d(x, torch.stack(filters)))
    conv(x).square().mean().backward()
    assert conv.weight.grad.abs().max() > 0


def test_standardised_weights_are_fused():
    conv = Conv2d(4, 6, 3, bias=False, norm=randomise_norms(nn.BatchNorm2d(6))).eval()
    conv.weight_standardization = True
    x = noise(2, 4, 9, 11)
    before = conv(x)
    fuse_norms(conv)
    assert conv.norm is None
    assert_close(conv(x), before)
