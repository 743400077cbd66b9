"""What follows the backbone: necks that make maps by themselves, heads that can't change, the order of channels."""

import copy

import pytest
import torch
from torch import nn

from detrex_backbones import ShapeSpec, TimmBackbone, swap_backbone
from detrex_backbones.config import LazyCall as L
from detrex_backbones.config.nodes import to_plain
from detrex_backbones.errors import ArgumentError, ConfigValueError
from detrex_backbones.zoo import shapes_of
from tests.swap_models import BGR, config, detr, dino, resnet, retinanet, runs


class Heads(nn.Module):
    """Takes whatever a config of heads says."""

    def __init__(self, **parts):
        super().__init__()


def detector(**parts):
    """detectron2's R-CNN without an FPN: heads on the backbone's own map."""
    return config(L(Heads)(backbone=resnet(["res4"]), **parts, **BGR))


def c4_heads(**parts):
    return L(Heads)(in_features=["res4"], pooler=L(Heads)(scales=(1 / 16,)), **parts)


def test_c4_heads_are_refused():
    cfg = detector(roi_heads=c4_heads(res5=L(Heads)(in_channels=1024, out_channels=2048)))
    before = copy.deepcopy(cfg)
    with pytest.raises(ArgumentError, match=r"model\.roi_heads\.res5 is the last stage of the old backbone"):
        swap_backbone(cfg, "resnet101")
    assert cfg == before


@pytest.mark.parametrize("backbone", ["resnet18", "timm/convnext_atto"])
def test_heads_that_pool_maps_of_other_channels_are_refused(backbone):
    cfg = detector(roi_heads=c4_heads())
    before = copy.deepcopy(cfg)
    with pytest.raises(ArgumentError, match=r"model\.roi_heads works directly on the backbone's maps, and its pooler"):
        swap_backbone(cfg, backbone)
    assert cfg == before
    swap_backbone(cfg, "resnet101")  # the same strides and channels
    assert cfg.model.backbone.stages.depth == 101


def test_anchors_count_on_strides():
    rpn = L(Heads)(in_features=["res5"], head=L(Heads)(in_channels=2048), anchor_generator=L(Heads)(strides=[32]))
    cfg = detector(proposal_generator=rpn)
    cfg.model.backbone.out_features = ["res5"]
    before = copy.deepcopy(cfg)
    with pytest.raises(ArgumentError, match="its anchor_generator and heads"):
        swap_backbone(cfg, "resnet50-dc5")
    assert cfg == before
    swap_backbone(cfg, "timm/convnext_atto")
    assert list(cfg.model.proposal_generator.in_features) == ["p3"]
    assert cfg.model.proposal_generator.head.in_channels == 320


def test_dilation_on_either_side_keeps_depth():
    cfg = dino()
    swap_backbone(cfg, "timm/convnext_atto")
    swap_backbone(cfg, "resnet50-dc5-torchvision")
    assert list(cfg.model.neck.in_features) == ["res3", "res4", "res5"]
    assert runs(cfg) == [(256, 8, 8), (256, 4, 4), (256, 4, 4)]
    swap_backbone(cfg, "timm/convnext_atto")
    assert list(cfg.model.neck.in_features) == ["p1", "p2", "p3"]
    assert runs(cfg) == [(256, 8, 8), (256, 4, 4), (256, 2, 2)]


def test_only_a_neck_with_num_outs_goes_without_a_coarse_map():
    three = L(TimmBackbone)(model_name="resnet18", out_indices=[1, 2, 3])  # strides 4, 8, 16
    cfg = dino()
    swap_backbone(cfg, three)
    assert list(cfg.model.neck.in_features) == list(cfg.model.neck.input_shapes) == ["p2", "p3"]
    assert cfg.model.neck.num_outs == 4
    for cfg in (detr(), retinanet()):
        before = copy.deepcopy(cfg)
        with pytest.raises(ArgumentError, match=r"no map of stride 32 for res5 .* FPN with a top block"):
            swap_backbone(cfg, three)
        assert cfg == before


def test_shared_shapes_are_changed_where_they_stand():
    """As in MaskDINO: the numbers in one place, interpolations to them, and a second list of names."""
    cfg = dino()
    shapes = {f"res{level}": ShapeSpec(channels=128 * 2 ** (level - 1), stride=2**level) for level in (3, 4, 5)}
    cfg.model.params = {"input_shape": shapes}
    cfg.model.head = L(Heads)(input_shape="${..params.input_shape}", transformer_in_features=["res4", "res5"])
    changes = swap_backbone(cfg, "timm/convnext_atto")
    assert list(cfg.model.head.transformer_in_features) == ["p2", "p3"]
    assert {key: (value.channels, value.stride) for key, value in cfg.model.head.input_shape.items()} == {
        "p1": (80, 8),
        "p2": (160, 16),
        "p3": (320, 32),
    }
    paths = [change.path for change in changes]
    assert "model.params.input_shape" in paths and "model.head.input_shape" not in paths


def test_an_interpolation_that_would_lead_nowhere():
    cfg = dino()
    cfg.model.depth = "${.backbone.stages.depth}"
    before = copy.deepcopy(cfg)
    with pytest.raises(ConfigValueError, match="interpolation that leads into the old backbone"):
        swap_backbone(cfg, "timm/convnext_atto")
    assert cfg == before
    swap_backbone(cfg, "resnet18")
    assert cfg.model.depth == 18


@pytest.mark.parametrize(
    ("train", "test"), [("image_format", "${...train.mapper.image_format}"), ("img_format", "BGR")]
)
def test_the_data_is_read_in_the_models_order(train, test):
    cfg = retinanet()
    cfg.dataloader = {
        "train": {"mapper": {train: "BGR", "augmentations": [{"img_format": "BGR"}]}},
        "test": {"mapper": {train: test}},
    }
    changes = {change.path: change.new for change in swap_backbone(cfg, "resnet18")}
    loader = to_plain(cfg.dataloader)
    assert loader == {
        "train": {"mapper": {train: "RGB", "augmentations": [{"img_format": "RGB"}]}},
        "test": {"mapper": {train: "RGB"}},
    }
    assert changes[f"dataloader.train.mapper.{train}"] == "RGB"
    assert (f"dataloader.test.mapper.{train}" in changes) == (test == "BGR")


class Bare(nn.Module):
    """A backbone without output_shape, as detrex's TorchvisionBackbone is."""

    def __init__(self, rates=3):
        super().__init__()
        self.rates = [rate.item() for rate in torch.linspace(0, 1, rates)]
        self.conv = nn.Conv2d(3, 7, 16, stride=16)

    def forward(self, x):
        return {"res4": self.conv(x)}


def test_networks_that_say_nothing_of_their_shapes():
    shapes = shapes_of(L(Bare)(), "bare")
    assert {key: (shape.channels, shape.stride) for key, shape in shapes.items()} == {"res4": (7, 16)}
    with pytest.raises(ArgumentError, match=r"the shapes of a layer can't be found: .*output_shape"):
        shapes_of(L(nn.Conv2d)(in_channels=3, out_channels=4, kernel_size=1), "a layer")
