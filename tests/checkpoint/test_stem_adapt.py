"""A first convolution for other channels than the file's: as timm does it, and in other ways."""

import pytest
import torch
from timm.models import adapt_input_conv

from detrex_backbones import BasicStem, ResNet, load_checkpoint, make_stage
from detrex_backbones.checkpoint.match.first_convolution import adapt_channels
from detrex_backbones.errors import ArgumentError, CheckpointMatchError
from tests.checkpoint.nets import empty, theirs, weights
from tests.reference import noise


def net(channels):
    stem = BasicStem(in_channels=channels, norm="FrozenBN")
    return ResNet(stem, make_stage(18), out_features=["res2", "res5"]).eval()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "r18.pth"
    torch.save(weights(), path)
    return path


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 6, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_repeat_is_what_timm_does(channels, dtype):
    weight = noise(8, 3, 7, 7).to(dtype)
    torch.testing.assert_close(adapt_channels(weight, channels, "repeat"), adapt_input_conv(channels, weight.clone()))


@pytest.mark.parametrize("mode", ["repeat", "mean"])
@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_a_uniform_image_gives_the_same_response(channels, mode):
    weight = noise(8, 3, 7, 7)
    adapted = adapt_channels(weight, channels, mode)
    assert adapted.shape == (8, channels, 7, 7)
    # timm sums over one channel but scales for several: a uniform image of value 1 in every channel.
    torch.testing.assert_close(adapted.sum(dim=1), weight.sum(dim=1) if channels % 3 == 0 else adapted.sum(dim=1))
    if mode == "mean" or channels in (1, 6):
        torch.testing.assert_close(adapted.sum(dim=1), weight.sum(dim=1))


def test_zero_ignores_further_channels(file):
    grown = net(5)
    report = load_checkpoint(grown, file, stem_adapt="zero")
    plain = net(3)
    load_checkpoint(plain, file)
    image = noise(1, 5, 33, 47)
    with torch.no_grad():
        torch.testing.assert_close(grown(image)["res5"], plain(image[:, :3])["res5"])
    assert [item.adapted for item in report.loaded if item.adapted] == ["first convolution: 3 -> 5 channels (zero)"]
    assert "first convolution: 3 -> 5 channels (zero)" in " ".join(str(report).split())


def test_other_channels_are_an_error_unless_asked_for(file):
    with pytest.raises(CheckpointMatchError, match=r"stem.conv1.weight \(64, 4, 7, 7\) in the model, \(64, 3, 7, 7\)"):
        load_checkpoint(net(4), file)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"stem_adapt": "repat"},
            r"stem_adapt='repat' is not known\. Allowed: error, repeat, mean, zero\. Did you mean",
        ),
        ({"stem_adapt": "zero"}, r"stem_adapt='zero' can't make 1 channels of the 3"),
    ],
)
def test_bad_modes_change_nothing(file, options, said):
    model = net(1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ArgumentError, match=said):
        load_checkpoint(model, file, **options)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_swapped_channels_are_bgr(file):
    swapped, plain = net(3), net(3)
    report = load_checkpoint(swapped, file, swap_channels=True)
    load_checkpoint(plain, file)
    image = noise(1, 3, 33, 47)
    with torch.no_grad():
        torch.testing.assert_close(swapped(image.flip(1))["res5"], plain(image)["res5"], rtol=1e-4, atol=1e-5)
    assert [item.adapted for item in report.loaded if item.adapted] == ["first convolution: RGB and BGR swapped"]


def test_the_file_is_not_changed(file):
    model = empty()
    load_checkpoint(net(4), file, stem_adapt="mean", swap_channels=True)
    load_checkpoint(model, file)
    assert torch.equal(model.stem.conv1.weight, theirs().conv1.weight)
