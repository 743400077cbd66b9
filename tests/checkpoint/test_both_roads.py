"""One detector's file fills both: the class with the peers' names, and timm's network of the same family.

The classes are compared with the peers' own in tests/interop; here the two roads must give the same maps.
"""

import pytest
import torch

from detrex_backbones import (
    ConvNeXt,
    EVA02_ViT,
    FocalNet,
    SimpleFeaturePyramid,
    SwinTransformer,
    TimmBackbone,
    ViT,
    load_checkpoint,
)
from detrex_backbones.errors import CheckpointMatchError

DEPTHS = {"depths": (1, 1, 2, 1)}
SWIN = {**DEPTHS, "embed_dim": 24, "num_heads": (1, 2, 4, 8)}
CONVNEXT = {**DEPTHS, "dims": (8, 16, 24, 32)}
FOCALNET = {"depths": (2, 2, 6, 2), "embed_dim": 96, "focal_levels": (2,) * 4, "focal_windows": (3,) * 4}
ALL = {"out_indices": (0, 1, 2, 3)}
ROADS = {
    "swin_tiny_patch4_window7_224": (
        lambda **more: SwinTransformer(**SWIN, **more),
        {**SWIN, "always_partition": True},
    ),
    "convnext_atto": (lambda **more: ConvNeXt(**CONVNEXT, **more), {**CONVNEXT, "conv_mlp": False}),
    "focalnet_tiny_srf": (lambda **more: FocalNet(**FOCALNET, **more), {}),
}
ODD = [(64, 96), (65, 97), (161, 227)]
SIZES = {"swin_tiny_patch4_window7_224": ODD, "convnext_atto": ODD, "focalnet_tiny_srf": [(64, 96), (96, 160)]}


def randomised(net):
    torch.manual_seed(0)
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.randn_like(value) * 0.08 + (0.5 if "norm" in name and name.endswith("weight") else 0))
    return net.eval()


def saved(tmp_path, state):
    path = tmp_path / "file.pth"
    torch.save({"model": dict(state)}, path)
    return str(path)


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ROADS)
def test_a_detectors_file_fills_both(name, tmp_path):
    build, kwargs = ROADS[name]
    theirs = randomised(build(**ALL))
    path = saved(tmp_path, {f"backbone.{key}": value for key, value in theirs.state_dict().items()})
    for model in (build(**ALL), TimmBackbone(name, output_norms=True, **ALL, **kwargs)):
        report = load_checkpoint(model.eval(), path)
        assert (report.coverage, report.file_coverage) == (1, 1)
        for size in SIZES[name]:
            image = torch.randn(1, 3, *size)
            with torch.no_grad():
                wanted, maps = theirs(image), model(image)
            for expected, found in zip(wanted.values(), maps.values(), strict=True):
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ROADS)
def test_a_classifiers_file_fills_both_but_for_what_a_detector_adds(name, tmp_path):
    build, kwargs = ROADS[name]
    state = {key: value for key, value in randomised(build(**ALL)).state_dict().items() if not key.startswith("norm")}
    width = next(reversed(state.values())).shape[0]
    path = saved(tmp_path, {**state, "norm.weight": torch.rand(width), "head.weight": torch.rand(1000, width)})
    for model in (build(**ALL), TimmBackbone(name, output_norms=True, **ALL, **kwargs)):
        report = load_checkpoint(model, path)
        assert {key.rpartition(".")[0] for key in report.kept} == {"norm0", "norm1", "norm2", "norm3"}
        assert all("detectors add" in why for why in report.kept.values())
        assert "kept" in str(report)


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ROADS)
def test_a_detectors_file_that_lost_one_norm_is_refused(name, tmp_path):
    build, kwargs = ROADS[name]
    state = dict(randomised(build(**ALL)).state_dict())
    del state["norm2.weight"]
    for model in (build(**ALL), TimmBackbone(name, output_norms=True, **ALL, **kwargs)):
        before = {key: value.clone() for key, value in model.state_dict().items()}
        with pytest.raises(CheckpointMatchError, match=r"norm2\.weight"):
            load_checkpoint(model, saved(tmp_path, state))
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


VIT = {"img_size": 64, "embed_dim": 24, "depth": 2, "num_heads": 2, "pretrain_img_size": 48}


def mae_file(**more):
    """What facebookresearch/mae publishes: a ViT with a class token, maybe with its decoder."""
    state = randomised(ViT(**VIT)).state_dict()
    return {
        "cls_token": torch.rand(1, 1, 24),
        "norm.weight": torch.rand(24),
        "norm.bias": torch.rand(24),
        **state,
        **more,
    }


@pytest.mark.parametrize("more", [{}, {"mask_token": torch.rand(1, 1, 8), "decoder_embed.weight": torch.rand(8, 24)}])
def test_mae_into_vitdet(more, tmp_path):
    net = ViT(**VIT, use_rel_pos=True, window_size=3, window_block_indexes=[0])
    model = SimpleFeaturePyramid(net, "last_feat", 8, (2.0, 1.0), norm="LN")
    state = mae_file(**more)
    report = load_checkpoint(model, saved(tmp_path, state))
    assert (report.scope, report.missing) == ("net", [])
    assert {key.rpartition(".")[2] for key in report.kept} == {"rel_pos_h", "rel_pos_w"}
    assert report.before_maps and "keep random values" in str(report)  # the pyramid's
    assert torch.equal(net.blocks[1].attn.qkv.weight, state["blocks.1.attn.qkv.weight"])


def test_a_detectors_vit_without_its_positions_is_refused(tmp_path):
    net = ViT(**VIT, use_rel_pos=True)
    state = dict(net.state_dict())
    del state["blocks.1.attn.rel_pos_h"]
    with pytest.raises(CheckpointMatchError, match=r"blocks\.1\.attn\.rel_pos_h"):
        load_checkpoint(net, saved(tmp_path, state))


def test_eva02_before_and_in_a_detector(tmp_path):
    net = EVA02_ViT(img_size=64, embed_dim=24, depth=2, num_heads=2, window_size=2, window_block_indexes=[0])
    state = {key: value for key, value in randomised(net).state_dict().items() if "rope" not in key}
    state |= {
        "cls_token": torch.rand(1, 1, 24),
        "rope.freqs_cos": torch.rand(196, 12),
        "rope.freqs_sin": torch.rand(196, 12),
    }
    report = load_checkpoint(net, saved(tmp_path, state))
    assert report.missing == [] and all("rope" in key for key in report.kept)
