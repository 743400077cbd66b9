"""Swin, ViT and MViT beside detectron2's: the same file, the same maps and gradients."""

import warnings
from functools import partial

import pytest
import torch
from torch import nn

import detrex_backbones
from tests.interop.theirs import largest_difference, need_detectron2
from tests.reference import TOLERANCE, noise

SIZES = [(64, 64), (161, 227), (192, 256), (97, 33), (224, 224)]
LARGE = (800, 1216)

SWIN = {"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)}
VIT = {"img_size": 256, "embed_dim": 32, "depth": 4, "num_heads": 4, "norm_layer": partial(nn.LayerNorm, eps=1e-6)}
WINDOWS = {"use_rel_pos": True, "window_size": 14, "window_block_indexes": [0, 2], "residual_block_indexes": [1, 2]}
SMALL_WINDOWS = {"window_size": 7, "window_block_indexes": range(4), "out_feature": "map"}
MVIT = {"embed_dim": 16, "norm_layer": partial(nn.LayerNorm, eps=1e-6)}

CALLS = {
    "swin": ("SwinTransformer", SWIN),
    "swin_384": ("SwinTransformer", SWIN | {"window_size": 12, "out_indices": (1, 2, 3), "pretrain_img_size": 384}),
    "swin_all": (
        "SwinTransformer",
        {"embed_dim": 24, "depths": [2, 3], "num_heads": [1, 2], "ape": True, "window_size": 5, "out_indices": (1,)}
        | {"pretrain_img_size": (96, 64), "qk_scale": 0.3, "patch_norm": False, "qkv_bias": False, "patch_size": (4, 4)}
        | {"mlp_ratio": 2.0, "frozen_stages": 2, "in_chans": 3},
    ),
    "vit": ("ViT", VIT | WINDOWS | {"drop_path_rate": 0.3, "rel_pos_zero_init": False}),
    "vit_plain": ("ViT", VIT | {"use_abs_pos": False, "qkv_bias": False, "mlp_ratio": 3, "act_layer": nn.ReLU}),
    "vit_no_cls": ("ViT", VIT | SMALL_WINDOWS | {"pretrain_use_cls_token": False, "patch_size": 8}),
    "mvit": ("MViT", MVIT | {"drop_path_rate": 0.3}),
    "mvit_t": ("MViT", MVIT | {"depth": 10, "last_block_indexes": (0, 2, 7, 9), "out_features": ("scale3", "scale5")}),
    "mvit_plain": (
        "MViT",
        {"embed_dim": 16, "depth": 5, "num_heads": 2, "last_block_indexes": (0, 2, 4), "use_abs_pos": True}
        | {"use_rel_pos": False, "residual_pooling": False, "out_features": ["scale2", "scale4"], "qkv_bias": False},
    ),
}


def pair(name):
    """Theirs with values that no initialisation gives, and ours with the same."""
    need_detectron2()
    import detectron2.modeling as theirs

    kind, arguments = CALLS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and timm, about how detectron2 calls them
        their_net = getattr(theirs, kind)(**arguments)
    our_net = getattr(detrex_backbones, kind)(**arguments)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in their_net.parameters():
            value.normal_(0, 0.2, generator=generator)
    assert list(our_net.state_dict()) == list(their_net.state_dict())
    our_net.load_state_dict(their_net.state_dict(), strict=True)
    return their_net, our_net


@pytest.mark.parametrize("name", CALLS)
def test_names_maps_and_what_learns_are_theirs(name):
    theirs, ours = pair(name)
    learning = [[key for key, value in net.named_parameters() if value.requires_grad] for net in (ours, theirs)]
    assert learning[0] == learning[1]
    shapes = [
        {key: (shape.channels, shape.stride) for key, shape in net.output_shape().items()} for net in (ours, theirs)
    ]
    assert shapes[0] == shapes[1]
    with torch.no_grad():
        for size in SIZES:
            images = noise(2, 3, *size)
            assert largest_difference(ours.eval()(images), theirs.eval()(images)) <= TOLERANCE, size


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("name", CALLS)
def test_maps_of_a_large_image_are_theirs(name):
    theirs, ours = pair(name)
    images = noise(1, 3, *LARGE)
    assert largest_difference(ours.eval()(images), theirs.eval()(images)) <= TOLERANCE


@pytest.mark.parametrize("name", ["swin", "swin_all", "vit", "mvit"])
def test_gradients_of_a_step_are_theirs_drop_path_included(name):
    gradients = []
    for net in pair(name):
        torch.manual_seed(3)
        maps = net.train()(noise(2, 3, 97, 65))
        sum(value.square().mean() for value in maps.values()).backward()
        gradients.append({key: value.grad for key, value in net.named_parameters() if value.grad is not None})
    assert list(gradients[0]) == list(gradients[1])
    largest = max(value.abs().max() for value in gradients[0].values())
    for key, value in gradients[0].items():
        # Some are zero by construction, such as those of a bias that all keys share.
        scale = max(value.abs().max().item(), 1e-5 * largest.item())
        assert (value - gradients[1][key]).abs().max() <= 2e-4 * scale, key


@pytest.mark.parametrize("name", ["swin", "vit", "mvit"])
def test_fresh_weights_are_spread_as_theirs(name):
    need_detectron2()
    import detectron2.modeling as theirs

    kind, arguments = CALLS[name]
    torch.manual_seed(0)
    nets = [getattr(module, kind)(**arguments).state_dict() for module in (theirs, detrex_backbones)]
    for key, value in nets[0].items():
        one, other = value.float(), nets[1][key].float()
        if one.numel() > 500 or one.std() == 0:
            assert one.mean().item() == pytest.approx(other.mean().item(), abs=0.3 * one.std().item()), key
            assert one.std().item() == pytest.approx(other.std().item(), rel=0.2), key


def test_learning_rates_decay_as_theirs():
    need_detectron2()
    from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate

    net = detrex_backbones.SimpleFeaturePyramid(
        detrex_backbones.ViT(**VIT | WINDOWS), "last_feat", 16, (2.0, 1.0), norm="LN"
    )
    for name, _ in net.named_parameters(prefix="backbone"):
        for arguments in ({}, {"lr_decay_rate": 0.7, "num_layers": 4}):
            rate = detrex_backbones.get_vit_lr_decay_rate(name, **arguments)
            assert rate == get_vit_lr_decay_rate(name, **arguments), name
