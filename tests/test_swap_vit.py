"""A plain ViT where maps of several strides are wanted, and back."""

import copy
import functools

import pytest
import timm
import torch
from torch import nn

from detrex_backbones import (
    FPN,
    LastLevelMaxPool,
    SimpleFeaturePyramid,
    TimmBackbone,
    ViT,
    get_config,
    instantiate,
    load_checkpoint,
    swap_backbone,
)
from detrex_backbones.config import LazyCall as L
from detrex_backbones.config.nodes import to_plain
from detrex_backbones.errors import ArgumentError, ConfigKeyError
from tests.swap_models import BGR, TopBlock, config, detr, dino, retinanet, runs

VIT = "timm/test_vit"  # patches of 16 pixels


class TopLevels(TopBlock):
    """detectron2's LastLevelP6P7 as a pyramid of ours takes it."""

    num_levels = 1

    def forward(self, x):
        return [self.p6(x)]


def test_a_dino_gets_a_pyramid():
    cfg = dino()
    changes = swap_backbone(cfg, VIT)
    assert runs(cfg, 128) == [(256, 16, 16), (256, 8, 8), (256, 4, 4)]
    node = cfg.model.backbone
    assert node._target_ is SimpleFeaturePyramid and list(node.scale_factors) == [2, 1, 0.5]
    assert list(node.net.out_indices) == [5] and node.in_feature == "p5"
    assert list(cfg.model.neck.in_features) == list(cfg.model.neck.input_shapes) == ["p3", "p4", "p5"]
    assert str(changes[0]).endswith(
        "-> SimpleFeaturePyramid(net=TimmBackbone(model_name='test_vit', maps=[5]), scale_factors=[2.0, 1.0, 0.5])"
    )
    # With its values: maps of what the ViT alone gives.
    model = instantiate(cfg.model).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps = model.backbone(image)
        alone = model.backbone.net(image)["p5"]
        expected = model.backbone.simfp_4(alone)
    assert {name: tuple(value.shape[1:]) for name, value in maps.items()} == {
        "p3": (256, 8, 12),
        "p4": (256, 4, 6),
        "p5": (256, 2, 3),
    }
    torch.testing.assert_close(maps["p4"], expected)


def test_its_weights_find_their_place_in_the_pyramid(tmp_path):
    cfg = dino()
    swap_backbone(cfg, VIT)
    assert cfg.train.init_checkpoint == "timm://test_vit.r160_in1k"
    file = tmp_path / "vit.pth"
    donor = timm.create_model("test_vit").state_dict()
    torch.save(donor, file)
    model = instantiate(cfg.model)
    report = load_checkpoint(model, file)
    assert report.coverage == 1
    torch.testing.assert_close(model.backbone.net.timm_model.state_dict()["model.cls_token"], donor["cls_token"])


@pytest.mark.slow
def test_from_vit_to_vit_the_pyramid_stays():
    cfg = dino()
    swap_backbone(cfg, VIT)
    cfg.model.backbone.out_channels = 64
    cfg.model.backbone.norm = ""
    cfg.model.backbone.top_block = L(LastLevelMaxPool)(in_feature="p5")
    names = ["p3", "p4", "p5", "p6"]
    spec = cfg.model.neck.input_shapes.p3
    cfg.model.neck.in_features, cfg.model.neck.input_shapes = names, dict.fromkeys(names, spec)
    swap_backbone(cfg, "timm/vit_tiny_patch16_224")
    assert cfg.model.backbone.net.model_name == "vit_tiny_patch16_224"
    assert (cfg.model.backbone.out_channels, cfg.model.backbone.norm) == (64, "")
    assert list(cfg.model.neck.in_features) == names
    assert [value.channels for value in cfg.model.neck.input_shapes.values()] == [64] * 4
    # And to a network with stages: the neck makes the coarsest map by itself, in num_outs.
    swap_backbone(cfg, "resnet18")
    assert list(cfg.model.neck.in_features) == ["res3", "res4", "res5"] and cfg.model.neck.num_outs == 4
    assert runs(cfg) == [(256, 8, 8), (256, 4, 4), (256, 2, 2)]


@pytest.mark.slow
def test_one_map_of_its_own_stride_needs_no_pyramid():
    cfg = detr(["res5"])
    swap_backbone(cfg, "resnet50-dc5")
    cfg.model.backbone = L(TimmBackbone)(model_name="resnet18", out_indices=[3])
    cfg.model.in_features, cfg.model.in_channels = ["p3"], 256
    swap_backbone(cfg, VIT)
    assert cfg.model.backbone._target_ is TimmBackbone and cfg.model.in_channels == 64
    assert runs(cfg) == [(256, 4, 4)]
    cfg = detr()
    swap_backbone(cfg, VIT)
    assert (list(cfg.model.in_features), cfg.model.in_channels) == (["p5"], 256)
    assert runs(cfg) == [(256, 2, 2)]


def test_it_takes_the_place_of_an_fpn():
    cfg = retinanet()
    cfg.model.backbone.top_block._target_ = TopLevels
    swap_backbone(cfg, VIT)
    node = cfg.model.backbone
    assert "bottom_up" not in node and list(cfg.model.head_in_features) == ["p3", "p4", "p5", "p6"]
    assert (node.top_block.in_feature, node.top_block.in_channels, node.top_block.out_channels) == ("p5", 256, 256)
    with torch.device("meta"):
        maps = instantiate(cfg.model).eval()(torch.empty(1, 3, 128, 128))
    assert {name: tuple(value.shape[1:]) for name, value in maps.items()} == {
        name: (256, side, side) for name, side in (("p3", 16), ("p4", 8), ("p5", 4), ("p6", 2))
    }


@pytest.mark.parametrize(
    ("make", "backbone", "error", "text"),
    [
        (dino, "timm/vit_small_patch14_dinov2", ArgumentError, "makes strides 3.5, 7, 14, 28 of them"),
        (retinanet, "timm/vit_base_patch8_224", ArgumentError, "but the config needs 8, 16, 32"),
    ],
)
def test_patches_that_fit_no_stride(make, backbone, error, text):
    cfg = make()
    before = copy.deepcopy(cfg)
    with pytest.raises(error, match=text):
        swap_backbone(cfg, backbone)
    assert cfg == before


def test_an_fpn_without_a_word_of_its_channels():
    cfg = retinanet()
    del cfg.model.backbone.out_channels, cfg.model.backbone.top_block
    before = copy.deepcopy(cfg)
    with pytest.raises(ConfigKeyError, match="has no out_channels"):
        swap_backbone(cfg, VIT)
    assert cfg == before


def test_a_feature_extractor_with_a_vit():
    cfg = get_config("resnet/resnet50")
    swap_backbone(cfg, VIT)
    with torch.device("meta"):
        shapes = instantiate(cfg.model.backbone).output_shape()
    assert [shape.stride for shape in shapes.values()] == [4, 8, 16, 32]
    assert list(to_plain(cfg.model.backbone.scale_factors)) == [4, 2, 1, 0.5]


def rcnn(**kwargs):
    """A detector as ViTDet's configs have it: its proposals read a level that only the top block makes."""
    pyramid = L(SimpleFeaturePyramid)(
        net=L(TimmBackbone)(model_name="test_vit", out_indices=(5,), drop_path_rate=0.1),
        in_feature="p5",
        out_channels=32,
        scale_factors=(4.0, 2.0, 1.0, 0.5),
        top_block=L(LastLevelMaxPool)(),
        **kwargs,
    )
    return config(L(Detector)(backbone=pyramid, heads=L(Heads)(in_features=["p2", "p3", "p4", "p5", "p6"]), **BGR))


class Heads(nn.Module):
    def __init__(self, in_features):
        super().__init__()
        self.in_features = list(in_features)


class Detector(nn.Module):
    def __init__(self, backbone, heads, pixel_mean, pixel_std, input_format="RGB"):
        super().__init__()
        self.backbone, self.heads = backbone, heads


@pytest.mark.few(1)
@pytest.mark.parametrize("norm", ["LN", ""])
@pytest.mark.parametrize("name", ["resnet18", "timm/convnext_atto", "timm/regnetx_002"])
def test_out_of_a_vitdet_an_fpn_keeps_the_names_the_channels_and_the_top_block(name, norm):
    cfg = rcnn(norm=norm)
    before = instantiate(cfg.model.backbone).output_shape()
    swap_backbone(cfg, name)
    model = instantiate(cfg.model)
    assert isinstance(model.backbone, FPN) and isinstance(model.backbone.top_block, LastLevelMaxPool)
    assert model.backbone.output_shape() == before
    assert model.heads.in_features == ["p2", "p3", "p4", "p5", "p6"]
    assert cfg.model.backbone.norm == norm
    with torch.no_grad():
        maps = model.backbone(torch.randn(1, 3, 128, 64))
    assert [tuple(value.shape[1:]) for value in maps.values()] == [
        (32, 32, 16),
        (32, 16, 8),
        (32, 8, 4),
        (32, 4, 2),
        (32, 2, 1),
    ]
    swap_backbone(cfg, VIT)  # and back
    assert instantiate(cfg.model.backbone).output_shape() == before


def decay(name, num_layers, lr_decay_rate, base=1):
    layer = num_layers + 1
    if ".blocks." in name:
        layer = int(name[name.find(".blocks.") :].split(".")[2]) + 1
    return base * lr_decay_rate ** (num_layers + 1 - layer)


def decay_of(**words):
    return functools.partial(decay, **words)


@pytest.mark.slow
@pytest.mark.parametrize("written", ["partial", "node"])
def test_the_decay_of_learning_rates_counts_the_new_blocks(written):
    cfg = rcnn()
    words = {"num_layers": 6, "lr_decay_rate": 0.7}
    function = functools.partial(decay, **words) if written == "partial" else L(decay_of)(**words)
    cfg.optimizer = {"params": {"lr_factor_func": function, "weight_decay": 0.1}}
    lines = [str(change) for change in swap_backbone(cfg, "timm/vit_tiny_patch16_224")]
    assert any("lr_factor_func" in line and "num_layers" in line for line in lines)
    function = cfg.optimizer.params.lr_factor_func
    function = function if written == "partial" else instantiate(function)
    with torch.device("meta"):
        names = [name for name, _ in instantiate(cfg.model).named_parameters()]
    assert max(function(name) for name in names) == 1
    assert function("backbone.net.timm_model.model.blocks.11.norm1.weight") == pytest.approx(0.7)


def test_a_network_without_such_blocks_is_said_where_learning_rates_count_them(caplog):
    cfg = rcnn()
    cfg.optimizer = {"params": {"lr_factor_func": functools.partial(decay, num_layers=6, lr_decay_rate=0.7)}}
    lines = [str(change) for change in swap_backbone(cfg, "timm/swin_tiny_patch4_window7_224")]
    (line,) = [line for line in lines if "lr_factor_func" in line]
    assert "optimizer.params.lr_factor_func.num_layers: 6 -> 6 (the new network has no such blocks" in line
    assert line in caplog.messages


def test_the_norms_of_a_transformer_are_no_choice_for_a_resnet():
    cfg = rcnn()
    cfg.model.backbone.net = L(ViT)(
        img_size=64, embed_dim=24, depth=2, num_heads=2, norm_layer=functools.partial(nn.LayerNorm, eps=1e-6)
    )
    cfg.model.backbone.in_feature = "last_feat"
    swap_backbone(cfg, "resnet18")
    own = get_config("resnet/resnet18").model.backbone
    assert cfg.model.backbone.bottom_up.stages.norm == own.stages.norm
    instantiate(cfg.model.backbone)
    plain = get_config("internimage/tiny")
    plain.model.backbone.norm_layer = "LN"
    swap_backbone(plain, "resnet18")
    assert plain.model.backbone.stages.norm == own.stages.norm


def test_a_pyramid_by_name_takes_the_place_of_a_pyramid_or_an_fpn():
    """An FPN over it would make maps of maps."""
    cfg = rcnn()
    lines = [str(change) for change in swap_backbone(cfg, "vitdet/large")]
    node = cfg.model.backbone
    assert node._target_ is SimpleFeaturePyramid and node.net._target_ is ViT and node.net.depth == 24
    assert node.net.drop_path_rate == 0.1 and not any("has no drop path" in line for line in lines)
    with torch.device("meta"):
        shapes = instantiate(node).output_shape()
    assert {name: (shape.channels, shape.stride) for name, shape in shapes.items()} == {
        f"p{level}": (32, 2**level) for level in range(2, 7)
    }
    swap_backbone(cfg, "resnet18")
    assert cfg.model.backbone._target_ is FPN
    swap_backbone(cfg, "vitdet/base")
    node = cfg.model.backbone
    assert node._target_ is SimpleFeaturePyramid and node.net._target_ is ViT
    assert (node.out_channels, node.norm) == (32, "LN")
    with torch.device("meta"):
        assert instantiate(node).output_shape() == shapes
