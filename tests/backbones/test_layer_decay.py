"""Learning rates by layer: beside `get_vit_lr_decay_rate`, and by hand for networks of stages."""

import re

import pytest
import torch
from torch import nn

from detrex_backbones import (
    DINOv3STAs,
    ResNet,
    SimpleFeaturePyramid,
    ViT,
    get_config,
    get_vit_lr_decay_rate,
    layer_decay_groups,
)
from detrex_backbones.backbones.resnet import BasicStem, make_stage
from detrex_backbones.errors import ArgumentError
from detrex_backbones.zoo import get_backbone
from detrex_backbones.zoo.meta_build import build_on_meta

RATE = 0.8


class Detector(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(2, 2)


def scales(model, **options):
    """Name of each parameter that learns -> what its learning rate is multiplied with."""
    names = {id(value): name for name, value in model.named_parameters()}
    groups = layer_decay_groups(model, 0.1, RATE, **options)
    assert [group["lr_scale"] for group in groups] == sorted(group["lr_scale"] for group in groups)
    for group in groups:
        assert group["lr"] == pytest.approx(0.1 * group["lr_scale"])
    return {names[id(value)]: group["lr_scale"] for group in groups for value in group["params"]}


def small_vitdet():
    net = ViT(img_size=64, embed_dim=16, depth=5, num_heads=2, residual_block_indexes=[1], use_rel_pos=True)
    return Detector(SimpleFeaturePyramid(net, "last_feat", 8, (2.0, 1.0), norm="LN"))


def test_a_vits_rates_are_detectron2s():
    found = scales(small_vitdet())
    assert len(found) == len(list(small_vitdet().parameters()))
    for name, scale in found.items():
        assert scale == pytest.approx(get_vit_lr_decay_rate(name, RATE, 5)), name


def test_a_vits_rates_beside_detectron2():
    theirs = pytest.importorskip("detectron2.modeling.backbone.vit", exc_type=ImportError).get_vit_lr_decay_rate
    for name, scale in scales(small_vitdet()).items():
        assert scale == pytest.approx(theirs(name, RATE, 5)), name


def test_deimv2s_adapter_learns_as_fast_as_the_heads():
    net = DINOv3STAs("vit_tiny", interaction_indexes=(1, 3, 5))
    found = scales(net, backbone="")
    assert len(found) == len(list(net.parameters()))
    for name, scale in found.items():
        block = re.search(r"blocks\.(\d+)\.", name)
        first = re.search(r"patch_embed|cls_token|storage_tokens|mask_token", name)
        layer = int(block[1]) + 1 if block else 0 if first and "sta." not in name else 7
        assert scale == pytest.approx(RATE ** (7 - layer)), name


@pytest.mark.parametrize(
    ("config", "depth", "layers"),
    [
        (
            "swin/tiny",
            12,
            {
                "patch_embed.proj.weight": 0,
                "layers.0.blocks.1.attn.qkv.weight": 2,
                "layers.0.downsample.reduction.weight": 2,
                "layers.2.blocks.0.mlp.fc1.bias": 5,
                "layers.3.blocks.1.norm1.weight": 12,
                "norm3.weight": 13,
            },
        ),
        (
            "convnext/tiny_384",
            18,
            {
                "downsample_layers.0.0.weight": 0,
                "stages.0.2.dwconv.weight": 3,
                "downsample_layers.1.1.weight": 4,
                "stages.1.0.gamma": 4,
                "stages.3.2.pwconv2.weight": 18,
                "norm3.bias": 19,
            },
        ),
        (
            "regnet/regnetx_200mf",
            13,
            {"stem.conv.weight": 0, "s1.b1.conv1.conv.weight": 1, "s2.b1.downsample.conv.weight": 2},
        ),
    ],
)
def test_networks_of_stages(config, depth, layers):
    found = scales(Detector(build_on_meta(get_config(config).model.backbone)))
    names = {name.removeprefix("backbone.").removeprefix("timm_model."): scale for name, scale in found.items()}
    for name, layer in layers.items():
        assert names[name] == pytest.approx(RATE ** (depth + 1 - layer)), name
    assert found["head.weight"] == 1


def test_a_resnet_without_what_is_frozen():
    net = ResNet(BasicStem(3, 64, "FrozenBN"), make_stage(depth=50, norm="FrozenBN"), freeze_at=2)
    found = scales(net, backbone="")
    assert not any(name.startswith(("stem.", "res2.")) for name in found)
    # 3 + 4 + 6 + 3 blocks: those of res2 count, though they don't learn.
    assert found["res3.0.conv1.weight"] == found["res3.0.shortcut.weight"] == pytest.approx(RATE ** (17 - 4))
    assert found["res5.2.conv3.weight"] == pytest.approx(RATE)


@pytest.mark.parametrize("name", ["focalnet/tiny_lrf_fl3", "internimage/tiny", "mvit/tiny", "vitdet/base"])
def test_every_family_has_blocks(name):
    with torch.device("meta"):
        found = scales(Detector(get_backbone(name)))
    assert min(found.values()) == pytest.approx(RATE ** (len(set(found.values())) - 1))


def test_an_optimizer_takes_them():
    groups = layer_decay_groups(small_vitdet(), 0.1, RATE)
    assert len(torch.optim.AdamW(groups).param_groups) == 7


def test_wrong_arguments():
    with pytest.raises(ArgumentError, match="no 'encoder'"):
        layer_decay_groups(small_vitdet(), 0.1, RATE, backbone="encoder")
    with pytest.raises(ArgumentError, match="no blocks are known"):
        layer_decay_groups(nn.Sequential(nn.Linear(2, 2)), 0.1, RATE, backbone="")
    with pytest.raises(ArgumentError, match="above 0"):
        layer_decay_groups(small_vitdet(), 0.1, 0.0)
