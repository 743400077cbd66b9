"""Which norm follows which convolution: folded where a run proves it, left where something would see it."""

import logging

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d as TorchvisionFrozen

from detrex_backbones import fuse_norms
from detrex_backbones.errors import ArgumentError
from tests.reference import assert_close, noise, randomise_norms


class Net(nn.Module):
    """A convolution and a norm, registered in the wrong order beside another pair."""

    def __init__(self, conv: nn.Module | None = None, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.norm = norm or nn.BatchNorm2d(6)
        self.other = nn.Conv2d(6, 6, 1)
        self.conv = conv or nn.Conv2d(4, 6, 3, bias=False)

    def forward(self, x):
        return self.other(self.norm(self.conv(x)))


class ReadTwice(Net):
    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y.mean()


class ReadThroughAView(Net):
    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y.flatten(1).sum()


class ReadWithoutGradient(Net):
    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y.detach().amax((2, 3), keepdim=True)


class GivenOutWithoutGradient(Net):
    def forward(self, x):
        y = self.conv(x)
        return {"raw": y.detach(), "normalised": self.norm(y)}


class GivenOut(Net):
    def forward(self, x):
        y = self.conv(x)
        return {"raw": y, "normalised": self.norm(y)}


class GivenOutUnseen(Net):
    def forward(self, x):
        y = self.conv(x)
        return type("Result", (), {"raw": y, "normalised": self.norm(y)})()


class NormedView(Net):
    def forward(self, x):
        return self.norm(self.conv(x).transpose(2, 3))


class ByKeyword(Net):
    def forward(self, x):
        return self.norm(input=self.conv(x))


class NormCalledTwice(Net):
    def forward(self, x):
        return self.norm(self.norm(self.conv(x)))


class ConvCalledTwice(Net):
    def forward(self, x):
        return self.norm(self.conv(x)) + self.conv(2 * x)


class WeightReadElsewhere(Net):
    def forward(self, x):
        return self.norm(self.conv(x)) * self.conv.weight.norm()


class WeightShared(Net):
    def forward(self, x):
        return self.norm(self.conv(x)) + nn.functional.conv2d(x, self.conv.weight)


class NormFirst(Net):
    def forward(self, x):
        return self.conv(self.other(self.norm(x)))


class Standardised(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


class WithoutBias(nn.Conv2d):
    def forward(self, x):
        return nn.functional.conv2d(x, self.weight, None)


class Doubled(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * 2


def left(net, x, caplog):
    """How many norms stay, once it is seen that the network computes the same."""
    net = randomise_norms(net).eval()
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        before = net(x)
        fuse_norms(net, x)
        after = net(x)
    if isinstance(before, torch.Tensor):
        assert_close(after, before, 1e-5)
    kept = sum(isinstance(part, nn.BatchNorm2d) for part in net.modules())
    assert (f"{kept} batch norms are not fused" in caplog.text) == (kept > 0)
    return kept


def test_a_norm_is_folded_into_the_convolution_that_it_follows(caplog):
    net = Net()
    other = net.other.weight.clone()
    assert left(net, noise(2, 4, 7, 9), caplog) == 0
    assert isinstance(net.norm, nn.Identity)
    assert torch.equal(net.other.weight, other)


@pytest.mark.parametrize(
    "kind",
    [
        *(ReadTwice, ReadThroughAView, ReadWithoutGradient, GivenOut, GivenOutUnseen, GivenOutWithoutGradient),
        *(NormedView, ByKeyword, NormCalledTwice),
        *(ConvCalledTwice, WeightReadElsewhere, WeightShared),
    ],
)
def test_what_somebody_else_could_see_stays(kind, caplog):
    assert left(kind(), noise(2, 4, 7, 9), caplog) == 1


@pytest.mark.parametrize("conv", [Standardised, WithoutBias, Doubled, nn.ConvTranspose2d])
def test_a_convolution_that_computes_otherwise_keeps_its_norm(conv, caplog):
    net = Net(conv(4, 6, 3, bias=False))
    assert left(net, noise(2, 4, 7, 9), caplog) == 1
    assert net.conv.bias is None


def test_a_norm_before_a_convolution_stays(caplog):
    assert left(NormFirst(nn.Conv2d(6, 6, 1)), noise(2, 6, 7, 9), caplog) == 1


def test_two_convolutions_of_one_weight_keep_their_norms(caplog):
    first, second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
    second.weight = first.weight
    net = nn.Sequential(first, nn.BatchNorm2d(4), second, nn.BatchNorm2d(4))
    assert left(net, noise(2, 4, 7, 9), caplog) == 2


@pytest.mark.parametrize("part", ["conv", "norm"])
def test_what_has_hooks_stays(part, caplog):
    net = Net()
    seen = []
    getattr(net, part).register_forward_hook(lambda *args: seen.append(1))
    assert left(net, noise(2, 4, 7, 9), caplog) == 1
    assert len(seen) == 3


def test_torchvisions_frozen_norm_is_folded_too():
    net = Net(norm=TorchvisionFrozen(6))
    net.norm.running_mean.normal_()
    net.norm.running_var.uniform_(0.5, 1.5)
    x = noise(2, 4, 7, 9)
    with torch.no_grad():
        before = net(x)
        assert_close(fuse_norms(net, x)(x), before, 1e-5)
    assert isinstance(net.norm, nn.Identity)


def test_a_norm_that_learns_is_refused_and_nothing_is_changed():
    net = Net()
    before = list(net.state_dict())
    with pytest.raises(ArgumentError, match=r"1 batch norm is in training mode, 'norm' for one.*Call eval\(\)"):
        fuse_norms(net, noise(2, 4, 7, 9))
    assert list(net.state_dict()) == before
    assert net.conv.bias is None


def test_nothing_is_changed_where_the_images_do_not_run():
    net = Net().eval()
    net.other.train()
    with pytest.raises(RuntimeError):
        fuse_norms(net, noise(2, 5, 7, 9))
    assert net.conv.bias is None
    assert net.other.training and not net.conv.training
    assert not net.norm._forward_hooks and not net.norm._forward_pre_hooks


def test_in_inference_mode_the_weights_stay_ordinary_parameters(caplog):
    net = Net()
    with torch.inference_mode():
        assert left(net, noise(2, 4, 7, 9), caplog) == 0
