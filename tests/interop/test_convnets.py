"""ConvNeXt, FocalNet, InternImage and RegNet beside detrex's and detectron2's: the same file, the same maps."""

from __future__ import annotations

import pytest
import torch

import detrex_backbones
from tests.interop.theirs import largest_difference, need_detectron2, need_detrex
from tests.reference import TOLERANCE, noise, randomise_parameters

SIZES = [(64, 64), (96, 160), (65, 97), (71, 130), (127, 33)]
LARGE = (800, 1216)

FOCAL = {"embed_dim": 24, "depths": (1, 2, 1, 1), "drop_path_rate": 0.1}
LARGE_FOCAL = {"focal_windows": (5, 5, 5, 5), "use_conv_embed": True, "use_postln": True, "use_layerscale": True}
INTERN = {"core_op": "DCNv3_pytorch", "channels": 16, "depths": [1, 2, 3, 1], "groups": [1, 2, 4, 8]}

# Class -> arguments, as configs write them.
DETREX = {
    "convnext": ("ConvNeXt", {"depths": [1, 1, 2, 1], "dims": [16, 32, 48, 64], "layer_scale_init_value": 1.0}),
    "convnext_frozen": (
        "ConvNeXt",
        {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32], "out_indices": [1, 3], "frozen_stages": 2},
    ),
    "convnext_no_gamma": (
        "ConvNeXt",
        {"in_chans": 3, "depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32], "layer_scale_init_value": 0},
    ),
    "focalnet": ("FocalNet", FOCAL),
    "focalnet_large": ("FocalNet", FOCAL | LARGE_FOCAL | {"out_indices": (1, 2, 3)}),
    "focalnet_all": (
        "FocalNet",
        FOCAL
        | {"use_postln_in_modulation": True, "normalize_modulator": True, "patch_norm": False, "mlp_ratio": 2.0}
        | {"frozen_stages": 3, "focal_levels": (2, 3, 1, 4), "use_checkpoint": True},
    ),
    "internimage": (
        "InternImage",
        INTERN | {"layer_scale": 1.0, "offset_scale": 2.0, "post_norm": True, "out_indices": (1, 2, 3)},
    ),
    "internimage_pre": ("InternImage", INTERN | {"norm_layer": "BN", "act_layer": "SiLU", "with_cp": True}),
    "internimage_huge": (
        "InternImage",
        INTERN
        | {"dw_kernel_size": 5, "res_post_norm": True, "center_feature_scale": True, "drop_path_type": "uniform"}
        | {"level2_post_norm": True, "level2_post_norm_block_ids": [0, 2]},
    ),
}

REGNET = {"stem_width": 8, "depth": 5, "w_a": 12.0, "w_0": 16, "w_m": 2.2, "group_width": 8}
DETECTRON2 = {
    "regnetx": REGNET | {"norm": "FrozenBN", "freeze_at": 2, "out_features": ["s1", "s2"]},
    "regnety": REGNET | {"norm": "BN", "se_ratio": 0.25, "out_features": ["stem", "s2"]},
    "regnet_wide": REGNET | {"norm": "BN", "bottleneck_ratio": 2, "w_m": 1.7},
}

BEHIND_S2 = ("s3.", "s4.")


def assert_the_same(theirs, ours, sizes, ordered=True, unused=()):
    """Names, what learns and, with the same weights, the maps at every size. `unused` stages learn in theirs alone."""
    randomise_parameters(theirs).eval()
    assert not ordered or list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict(), strict=True)
    learning = [[key for key, value in net.named_parameters() if value.requires_grad] for net in (ours, theirs)]
    learning[1] = [key for key in learning[1] if not key.startswith(tuple(unused))]
    assert learning[0] == learning[1] or (not ordered and set(learning[0]) == set(learning[1]))
    shapes = [
        {name: (shape.channels, shape.stride) for name, shape in net.output_shape().items()} for net in (ours, theirs)
    ]
    assert shapes[0] == shapes[1]
    with torch.no_grad():
        for size in sizes:
            images = noise(1, 3, *size)
            assert largest_difference(ours.eval()(images), theirs(images)) <= TOLERANCE, size


def assert_the_same_gradients(theirs, ours):
    """Of every parameter, in double precision: in single, rounding alone is some thousandths of the first layers'."""
    randomise_parameters(theirs).eval().double()
    ours.eval().double().load_state_dict(theirs.state_dict(), strict=True)
    gradients = []
    for net in (ours, theirs):
        sum(value.square().mean() for value in net(noise(2, 3, 64, 64).double()).values()).backward()
        gradients.append({name: value.grad for name, value in net.named_parameters() if value.grad is not None})
    assert gradients[1]
    assert largest_difference({name: gradients[0][name] for name in gradients[1]}, gradients[1]) <= TOLERANCE
    assert len(gradients[0]) == len(gradients[1])


def detrex_pair(name):
    need_detrex()
    import detrex.modeling.backbone as theirs

    kind, arguments = DETREX[name]
    torch.manual_seed(0)
    return getattr(theirs, kind)(**arguments), getattr(detrex_backbones, kind)(**arguments)


def regnet_pair(name):
    need_detectron2()
    from detectron2.modeling.backbone import regnet

    nets = [
        module.RegNet(stem_class=module.SimpleStem, block_class=module.ResBottleneckBlock, **DETECTRON2[name])
        for module in (regnet, detrex_backbones)
    ]
    return tuple(nets)


@pytest.mark.parametrize("name", DETREX)
def test_detrex_files_give_detrex_maps(name):
    assert_the_same(*detrex_pair(name), SIZES)


@pytest.mark.parametrize("name", DETECTRON2)
def test_detectron2_files_give_detectron2_maps(name):
    assert_the_same(*regnet_pair(name), SIZES, unused=BEHIND_S2 if "out_features" in DETECTRON2[name] else ())


@pytest.mark.parametrize("name", [name for name in DETREX if name != "focalnet_all"])  # it recomputes, reentrantly
def test_gradients_are_detrexs(name):
    assert_the_same_gradients(*detrex_pair(name))


@pytest.mark.parametrize("name", ["regnety"])
def test_gradients_are_detectron2s(name):
    assert_the_same_gradients(*regnet_pair(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnext", "focalnet_large", "internimage"])
def test_at_the_size_of_a_photo(name):
    assert_the_same(*detrex_pair(name), [LARGE])


@pytest.mark.slow
def test_regnet_at_the_size_of_a_photo():
    assert_the_same(*regnet_pair("regnety"), [LARGE], unused=BEHIND_S2)
