"""NaiveSyncBatchNorm: alone, and in two processes against one batch norm over both their images."""

import pytest
import torch
from torch import nn

from detrex_backbones import NaiveSyncBatchNorm, get_norm
from detrex_backbones.errors import ArgumentError
from tests.checkpoint.distributed.launch import launch
from tests.reference import assert_close, noise

CHANNELS = 5


def images(count):
    return noise(4, CHANNELS, 6, 7)[:count], noise(4, CHANNELS, 6, 7)[count:]


def test_the_names_of_configs():
    assert type(get_norm("naiveSyncBN", CHANNELS)) is NaiveSyncBatchNorm
    assert get_norm("naiveSyncBN_N", CHANNELS)._stats_mode == "N"
    assert type(get_norm("nnSyncBN", CHANNELS)) is nn.SyncBatchNorm
    with pytest.raises(ArgumentError, match="Allowed: '', 'N'"):
        NaiveSyncBatchNorm(CHANNELS, stats_mode="n")


def test_alone_it_is_a_batch_norm():
    ours, plain = NaiveSyncBatchNorm(CHANNELS), nn.BatchNorm2d(CHANNELS)
    assert torch.equal(ours(noise(2, CHANNELS, 3, 4)), plain(noise(2, CHANNELS, 3, 4)))
    assert list(ours.state_dict()) == list(plain.state_dict())
    assert torch.equal(ours.running_var, plain.running_var)


def one_of_two(rank, folder, count, mode):
    norm = NaiveSyncBatchNorm(CHANNELS, stats_mode=mode)
    with torch.no_grad():
        norm.weight.copy_(torch.arange(1.0, 1 + CHANNELS))
    x = images(count)[rank].clone().requires_grad_()
    y = norm(x)
    y.pow(3).sum().backward()
    return y.detach(), x.grad, norm.running_mean, norm.running_var, norm.weight.grad


@pytest.mark.few(1)
@pytest.mark.parametrize(("count", "mode"), [(2, ""), (3, "N"), (4, "N")])
def test_two_processes_are_one_batch(count, mode, tmp_path):
    results = launch(one_of_two, 2, tmp_path / "run", count, mode)
    plain = nn.BatchNorm2d(CHANNELS)
    with torch.no_grad():
        plain.weight.copy_(torch.arange(1.0, 1 + CHANNELS))
    x = torch.cat(images(count)).requires_grad_()
    y = plain(x)
    y.pow(3).sum().backward()
    for index, whole in enumerate((y, x.grad)):
        assert_close(torch.cat([result[index] for result in results]), whole)
    assert_close(results[0][4] + results[1][4], plain.weight.grad)
    for result in results:
        assert_close(result[2], plain.running_mean)
        biased = torch.cat(images(count)).var((0, 2, 3), unbiased=False)  # torch keeps the unbiased one
        assert_close(result[3], 0.9 + 0.1 * biased)


def without_images(rank, folder):
    try:
        NaiveSyncBatchNorm(CHANNELS)(torch.zeros(0, CHANNELS, 2, 2))
    except ArgumentError as error:
        return str(error)
    return "no error"


@pytest.mark.slow
def test_no_images_need_the_other_mode(tmp_path):
    assert "stats_mode='N'" in launch(without_images, 2, tmp_path / "run")[0]
