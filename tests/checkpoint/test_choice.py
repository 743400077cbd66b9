"""Of several networks, namings and sets of weights in a file the right one is taken, or none."""

import pytest
import timm
import torch
from torch import nn

from detrex_backbones import FeatureExtractor, TimmBackbone, load_checkpoint
from tests.checkpoint.nets import empty, refused, save, weights

VIT = {"embed_dim": 64, "depth": 2, "num_heads": 2, "img_size": 64}


def random_state(net):
    return {key: torch.randn_like(value) for key, value in net.state_dict().items() if value.is_floating_point()}


def extractor():
    return FeatureExtractor(empty(), [0.0] * 3, [1.0] * 3)


def test_names_of_the_model_win_over_those_of_a_convention(tmp_path):
    """Beside the network in our names there is one in torchvision's, as whole and with other values."""
    state = {f"net.{key}": value for key, value in random_state(empty()).items()}
    file = save(tmp_path, state | {f"other.{key}": value for key, value in weights(counters=False).items()})
    report = load_checkpoint(model := extractor(), file)
    assert (report.source, report.prefix) == ("as stored", "net.")
    assert torch.equal(model.backbone.stem.conv1.weight, state["net.stem.conv1.weight"])


@pytest.mark.parametrize("same", [True, False])
def test_a_network_that_is_written_twice_is_one(tmp_path, same):
    state = random_state(empty())
    again = {key: value.clone() for key, value in state.items()}
    again["res5.1.conv2.weight"][0, 0, 0, 0] += not same
    names = [(f"one.{key}", f"two.{key}") for key in state]
    file = {one: state[key] for key, (one, _) in zip(state, names, strict=True)}
    file |= {two: again[key] for key, (_, two) in zip(state, names, strict=True)}
    if same:
        assert load_checkpoint(extractor(), save(tmp_path, file)).coverage == 1
    else:
        assert "it holds 2 networks that fit: 'one', 'two'" in str(refused(extractor(), save(tmp_path, file)))


def test_weights_of_another_dtype_are_others(tmp_path):
    state = random_state(nn.Linear(3, 4))
    half = {key: value.half() for key, value in state.items()}
    file = save(tmp_path, {"models": [{key: value.float() for key, value in half.items()}, half]})
    assert "container='models.0' or container='models.1'" in str(refused(nn.Linear(3, 4), file))


def test_names_that_fit_are_left_to_the_familys_reader_where_a_shape_does_not(tmp_path):
    """Some ViTs keep the patch embedding as a linear layer: timm's reader makes a convolution of it."""
    state = random_state(timm.create_model("vit_tiny_patch16_224", **VIT))
    flat = state | {"patch_embed.proj.weight": state["patch_embed.proj.weight"].flatten(1)}
    model = TimmBackbone("vit_tiny_patch16_224", out_indices=(1,), **VIT)
    report = load_checkpoint(model, save(tmp_path, flat))
    assert report.coverage == report.file_coverage == 1
    own = model.state_dict()["timm_model.model.patch_embed.proj.weight"]
    assert torch.equal(own, state["patch_embed.proj.weight"])


def test_of_two_tensors_that_a_wrapper_alone_tells_apart_the_first_is_taken_and_the_other_said(tmp_path):
    state = random_state(nn.Linear(3, 4))
    file = save(tmp_path, state | {f"module.{key}": value + 1 for key, value in state.items()})
    report = load_checkpoint(model := nn.Linear(3, 4), file)
    assert torch.equal(model.weight, state["weight"])
    assert report.left_over == {f"module.{key}": f"second copy of {key}" for key in state}
