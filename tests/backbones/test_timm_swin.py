"""timm's Swin as detectors run it: padded first, then rolled. Proved against torchvision's, given the same weights."""

import copy
import re

import pytest
import timm
import torch
from torch import nn
from torch.export import Dim
from torchvision.models import swin_transformer as torchvision_swin

from detrex_backbones import TimmBackbone
from tests.reference import assert_same_maps, noise

SMALL = {"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)}
SWIN, SWIN_V2 = "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"
# Multiples of the patch, 4, as whoever calls the backbone pads to its `size_divisibility`; none but the first is one of
# the window in each stage. At 224 the last stage is one window, at 256 that of V2.
SIZES = (
    *((224, 224), (256, 256), (228, 220), (232, 96), (64, 256), (32, 36), (40, 160), (128, 132), (200, 60), (52, 300)),
    *((76, 84), (100, 212), (248, 48), (112, 116), (148, 172), (36, 236), (260, 68), (92, 188), (140, 56), (60, 60)),
)


def torchvision_net(version: int) -> nn.Module:
    block, merge, window = (
        (torchvision_swin.SwinTransformerBlock, torchvision_swin.PatchMerging, 7)
        if version == 1
        else (torchvision_swin.SwinTransformerBlockV2, torchvision_swin.PatchMergingV2, 8)
    )
    torch.manual_seed(0)
    net = torchvision_swin.SwinTransformer(
        patch_size=[4, 4],
        embed_dim=SMALL["embed_dim"],
        depths=list(SMALL["depths"]),
        num_heads=list(SMALL["num_heads"]),
        window_size=[window, window],
        stochastic_depth_prob=0.0,
        block=block,
        downsample_layer=merge,
    )
    for name, parameter in net.named_parameters():  # so that it matters what a pixel attends to
        if "attn" in name:
            parameter.data.copy_(torch.randn_like(parameter) * (0.3 if parameter.dim() > 1 else 0.1))
    return net.eval()


def in_timms_names(net: nn.Module) -> dict[str, torch.Tensor]:
    renamed = {}
    for name, value in net.state_dict().items():
        name = name.replace("features.0.0.", "patch_embed.proj.").replace("features.0.2.", "patch_embed.norm.")
        name = re.sub(r"features\.([1357])\.", lambda match: f"layers_{int(match[1]) // 2}.blocks.", name)
        name = re.sub(r"features\.([246])\.", lambda match: f"layers_{int(match[1]) // 2}.downsample.", name)
        name = name.replace("mlp.0.", "mlp.fc1.").replace("mlp.3.", "mlp.fc2.").replace("cpb_mlp.fc1", "cpb_mlp.0")
        if name.endswith(("relative_position_index", "relative_coords_table")) or name.startswith(("norm.", "head.")):
            continue
        if name.endswith("relative_position_bias_table"):
            value = value.view(-1, value.shape[-1])
        if name.endswith("qkv.bias") and "logit" in "".join(net.state_dict()):
            query, _, renamed[name.replace("qkv.bias", "v_bias")] = value.chunk(3)
            name, value = name.replace("qkv.bias", "q_bias"), query
        renamed[name] = value
    return renamed


def torchvision_maps(net: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    maps, x = {}, images
    for index, layer in enumerate(net.features):
        x = layer(x)
        if index % 2:
            maps[f"p{index // 2}"] = x.permute(0, 3, 1, 2)
    return maps


@pytest.fixture(scope="module", params=[(1, SWIN), (2, SWIN_V2)], ids=["swin", "swin-v2"])
def pair(request):
    """torchvision's network and ours, with one set of weights."""
    version, name = request.param
    theirs = torchvision_net(version)
    ours = TimmBackbone(name, **SMALL).eval()
    missing, unexpected = ours.timm_model.load_state_dict(in_timms_names(theirs), strict=False)
    assert not unexpected and not [key for key in missing if not key.endswith("relative_position_index")]
    return theirs, ours


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_maps_are_torchvisions_at_any_size(pair, size):
    theirs, ours = pair
    images = noise(1, 3, *size)
    assert_same_maps(ours(images), torchvision_maps(theirs, images))


@torch.no_grad()
def test_timms_own_blocks_give_other_maps(pair):
    """Without this there is nothing to be proved: the tests above would pass for timm's network too."""
    theirs, ours = pair
    rolled_first = copy.deepcopy(ours)
    for part in rolled_first.modules():
        if type(part).__module__ == "detrex_backbones.backbones.timm.swin":
            part.__class__ = type(part).__mro__[2]
    images = noise(1, 3, 100, 232)
    expected, found = torchvision_maps(theirs, images), rolled_first(images)
    off = [float((found[name] - expected[name]).norm() / expected[name].norm()) for name in expected]
    assert max(off) > 0.02


def test_names_stay_timms():
    ours = TimmBackbone(SWIN, **SMALL)
    theirs = timm.create_model(SWIN, features_only=True, **SMALL)
    assert list(ours.timm_model.state_dict()) == list(theirs.state_dict())


@pytest.mark.slow
def test_open_sizes_can_be_exported(pair):
    """In steps of the window at the last stride, as docs/export.md says: anything else takes torch minutes."""
    _, ours = pair
    ours = TimmBackbone(ours.model_name, out_indices=(0,), **SMALL).eval()
    step = 4 * ours.timm_model.layers_0.blocks[0].window_size[0]
    sizes = {2: step * Dim("rows", min=3, max=20), 3: step * Dim("columns", min=3, max=20)}
    with torch.no_grad():
        exported = torch.export.export(ours, (noise(1, 3, 6 * step, 4 * step),), dynamic_shapes=(sizes,))
        images = noise(1, 3, 3 * step, 7 * step)
        assert_same_maps(exported.module()(images), ours(images))
