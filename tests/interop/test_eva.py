"""EVA and EVA-02 beside detrex's: the same file, the same maps, alone and within a SimpleFeaturePyramid."""

from __future__ import annotations

import pytest
import torch

import detrex_backbones
from detrex_backbones.backbones.eva import beit_resizing
from tests.interop.test_convnets import LARGE, SIZES, assert_the_same, assert_the_same_gradients
from tests.interop.theirs import need_detrex

SMALL = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 3, "num_heads": 3, "pretrain_img_size": 48}
WINDOWS = {"window_size": 3, "window_block_indexes": [0, 2], "residual_block_indexes": [1]}
EVERYWHERE = {"window_size": 3, "window_block_indexes": [0, 1, 2]}

EVA = {
    "plain": ("EVAViT", SMALL),
    "windows": ("EVAViT", SMALL | WINDOWS | {"use_rel_pos": True, "drop_path_rate": 0.1}),
    "beit": ("EVAViT", SMALL | WINDOWS | {"use_rel_pos": True, "rel_pos_zero_init": False, "interp_type": "beit"}),
    "all": (
        "EVAViT",
        SMALL
        | {"beit_like_qkv_bias": False, "beit_like_gamma": True, "freeze_patch_embed": True, "use_rel_pos": True}
        | {"pretrain_use_cls_token": False, "use_act_checkpoint": True, "out_feature": "map"},
    ),
    "no_positions": ("EVAViT", SMALL | {"use_abs_pos": False, "beit_like_qkv_bias": False, "qkv_bias": False}),
}
# With attention over the whole map, detrex's takes images of `img_size` alone, and those that have as many patches.
EVA02 = {
    "windows": ("EVA02_ViT", SMALL | EVERYWHERE | {"residual_block_indexes": [1], "use_rel_pos": True}, SIZES),
    "whole": ("EVA02_ViT", SMALL | WINDOWS | {"drop_path_rate": 0.1}, [(64, 64), (65, 79), (71, 66)]),
    "pretraining": (
        "EVA02_ViT",
        SMALL | {"intp_freq": False, "pt_hw_seq_len": 4, "qkv_bias": False, "use_abs_pos": False, "xattn": False},
        [(64, 64), (70, 77)],
    ),
}
PYRAMID = {"out_channels": 16, "scale_factors": (4.0, 2.0, 1.0, 0.5), "norm": "LN", "square_pad": 64}


def pair(kind, arguments):
    need_detrex()
    import detrex.modeling.backbone as theirs

    torch.manual_seed(0)
    return getattr(theirs, kind)(**arguments), getattr(detrex_backbones, kind)(**arguments)


@pytest.mark.parametrize("name", EVA)
def test_eva_files_give_detrex_maps(name):
    assert_the_same(*pair(*EVA[name]), SIZES)


@pytest.mark.parametrize("name", EVA02)
def test_eva02_files_give_detrex_maps(name):
    kind, arguments, sizes = EVA02[name]
    assert_the_same(*pair(kind, arguments), sizes)


@pytest.mark.parametrize(("kind", "arguments"), [EVA["windows"], EVA02["whole"][:2]], ids=["EVAViT", "EVA02_ViT"])
def test_gradients_are_detrexs(kind, arguments):
    assert_the_same_gradients(*pair(kind, arguments))


@pytest.mark.parametrize(("kind", "arguments"), [EVA["windows"], EVA02["whole"][:2]], ids=["EVAViT", "EVA02_ViT"])
def test_within_a_pyramid(kind, arguments):
    theirs, ours = pair(kind, arguments)
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool
    from detrex.modeling.backbone import SimpleFeaturePyramid

    theirs = SimpleFeaturePyramid(theirs, "last_feat", top_block=LastLevelMaxPool(), **PYRAMID)
    ours = detrex_backbones.SimpleFeaturePyramid(
        ours, "last_feat", top_block=detrex_backbones.LastLevelMaxPool(), **PYRAMID
    )
    assert set(ours.state_dict()) == set(theirs.state_dict())
    assert_the_same(theirs, ours, [(64, 64)], ordered=False)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "arguments"), [EVA["windows"], EVA02["windows"][:2]], ids=["EVAViT", "EVA02_ViT"])
def test_at_the_size_of_a_photo(kind, arguments):
    assert_the_same(*pair(kind, arguments), [LARGE])


def test_tables_are_resized_by_scipys_spline():
    interpolate = pytest.importorskip("scipy.interpolate", reason="scipy is not installed")
    for source, target in ((5, 9), (27, 127), (63, 27), (27, 27)):
        distances, step = [], 1.0
        for index in range(source // 2):
            distances.append(step)
            step += 1.0903078 ** (index + 1)
        values = torch.randn(source, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        spline = interpolate.interp1d(
            [-d for d in reversed(distances)] + [0, *distances],
            values.numpy(),
            kind="cubic",
            axis=0,
            fill_value="extrapolate",
        )
        wanted = torch.tensor(spline(torch.arange(target).numpy() - target // 2))
        torch.testing.assert_close(beit_resizing(source, target) @ values, wanted, rtol=1e-9, atol=1e-9)
