"""SwinTransformer beside torchvision's, whose windows are cut in the same way; and what is its own."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models.swin_transformer import SwinTransformer as TheirSwin

from detrex_backbones import SwinTransformer
from detrex_backbones.backbones.attention import attend
from detrex_backbones.backbones.windows import Windows
from detrex_backbones.errors import ArgumentError
from tests.backbones.transformers_of_peers import rename
from tests.reference import assert_close, assert_same_maps, noise

SMALL = {"embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4), "out_indices": (0, 1), "drop_path_rate": 0.0}


def randomise(net, seed=0):
    """Values that no initialisation gives: zeros and ones hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in net.parameters():
            value.normal_(0, 0.2, generator=generator)
    return net


@pytest.fixture(scope="module")
def pair():
    theirs = TheirSwin([4, 4], 24, [2, 2], [2, 4], [7, 7], stochastic_depth_prob=0.0, num_classes=1)
    randomise(theirs).eval()
    ours = SwinTransformer(**SMALL | {"out_indices": [1]}, norm_layer=partial(nn.LayerNorm, eps=1e-5)).eval()
    state = rename(theirs.state_dict(), "torchvision_swin")
    state = {name: value for name, value in state.items() if not name.startswith("head.")}
    with_shapes = {name: value.reshape(ours.state_dict()[name].shape) for name, value in state.items()}
    ours.load_state_dict(with_shapes, strict=True)
    return ours, theirs


# Maps larger than a window, as torchvision doesn't shift the others; some of them odd.
@pytest.mark.parametrize("size", [(64, 64), (72, 100), (100, 68), (116, 148)])
def test_the_maps_are_torchvisions(pair, size):
    ours, theirs = pair
    image = noise(2, 3, *size)
    with torch.no_grad():
        assert_close(ours(image)["p1"], theirs.norm(theirs.features(image)).permute(0, 3, 1, 2))


def test_the_gradients_are_torchvisions(pair):
    ours, theirs = (copy.deepcopy(net).train() for net in pair)
    image = noise(2, 3, 72, 100)
    ours(image)["p1"].pow(3).sum().backward()
    theirs.norm(theirs.features(image)).pow(3).sum().backward()
    gradients = {name: value.grad for name, value in theirs.named_parameters() if value.grad is not None}
    for name, gradient in rename(gradients, "torchvision_swin").items():
        own = ours.get_parameter(name)
        assert_close(own.grad, gradient.reshape(own.shape), 1e-4)


def test_padded_patches_and_maps_that_are_smaller_than_a_window():
    net = randomise(SwinTransformer(**SMALL)).eval()
    image = noise(1, 3, 17, 30)
    maps = net(image)
    assert {name: tuple(value.shape[2:]) for name, value in maps.items()} == {"p0": (5, 8), "p1": (3, 4)}
    assert_same_maps(net(nn.functional.pad(image, (0, 2, 0, 3))), maps, 0)


@pytest.mark.parametrize("size", [(14, 14), (11, 17), (3, 5)])
@pytest.mark.parametrize("shift", [0, 3])
def test_windows_are_what_torchs_operators_make(size, shift):
    x = noise(2, *size, 6).requires_grad_()
    filling = noise(6, seed=1).requires_grad_()
    fast, slow = Windows(x, 7, shift), Windows(x, 7, shift)
    slow.rows = None
    results = []
    for windows in (fast, slow):
        cut = windows.cut(x, filling)
        back = windows.join(cut * torch.arange(len(cut))[:, None, None, None])
        loss = cut.pow(2).sum() + back.pow(3).sum()
        results.append((cut, back, *torch.autograd.grad(loss, (x, filling), allow_unused=True)))
    for one, other in zip(*results, strict=True):
        assert other is None or torch.equal(one, other) or (one - other).abs().max() < 1e-3 * other.abs().max()
    assert torch.equal(fast.join(fast.cut(x)), x)


@pytest.mark.parametrize("groups", [1, 3])
def test_attention_that_learns_its_bias_has_the_gradients_of_the_one_that_is_written_out(groups):
    qkv = noise(6, 5, 3, 2, 4).requires_grad_()
    bias = noise(groups, 2, 5, 5, seed=1).requires_grad_()
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    logits = 0.3 * q @ k.transpose(-2, -1) + bias.repeat(6 // groups, 1, 1, 1)
    expected = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
    given = attend(qkv, bias, 0.3)
    with torch.no_grad():
        assert_close(attend(qkv, bias, 0.3), expected)  # another way
    assert_close(given, expected)
    weight = noise(*expected.shape, seed=2)
    for one, other in zip(
        torch.autograd.grad((given * weight).sum(), (qkv, bias)),
        torch.autograd.grad((expected * weight).sum(), (qkv, bias)),
        strict=True,
    ):
        assert_close(one, other)


@pytest.mark.parametrize("frozen", [-1, 0, 1, 2, 3])
def test_what_is_frozen(frozen):
    net = SwinTransformer(**SMALL, ape=True, frozen_stages=frozen)
    learning = {name.split(".")[0] for name, value in net.named_parameters() if value.requires_grad}
    stages = {name.split(".")[1] for name, value in net.named_parameters() if value.requires_grad and "layers" in name}
    assert ("patch_embed" in learning) == (frozen < 0)
    assert ("absolute_pos_embed" in learning) == (frozen < 1)
    assert stages == {-1: {"0", "1"}, 0: {"0", "1"}, 1: {"0", "1"}, 2: {"1"}, 3: set()}[frozen]
    assert {"norm0", "norm1"} <= learning


def test_recomputed_blocks_give_the_same_gradients():
    nets = [randomise(SwinTransformer(**SMALL, use_checkpoint=use)) for use in (False, True)]
    for net in nets:
        sum(value.square().mean() for value in net(noise(1, 3, 50, 70)).values()).backward()
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert_close(one.grad, other.grad, 1e-6)


def test_drop_path_leaves_whole_images_out_in_training_alone():
    net = randomise(SwinTransformer(**SMALL | {"drop_path_rate": 0.9}))
    image = noise(1, 3, 64, 64).expand(8, -1, -1, -1)
    torch.manual_seed(0)
    maps = net.train()(image)["p1"]
    assert len({round(value.sum().item(), 3) for value in maps}) > 1
    assert_close(*net.eval()(image[:2])["p1"].split(1), 1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depths": (2, 2, 2)}, r"depths=\[2, 2, 2\] has 3 stages, num_heads=\[2, 4\] has 2"),
        ({"num_heads": (2, 5)}, "stage 1 has .* 48 channels, which 5 heads do not divide"),
        ({"out_indices": (0, 2)}, r"at least one of \[0, 1\]"),
        ({"out_indices": ()}, "at least one"),
        ({"out_indices": (1, 1)}, "none of them twice"),
        ({"frozen_stages": 4}, "frozen_stages=4 is out of range"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        SwinTransformer(**{**SMALL, **arguments})
