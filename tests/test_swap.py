"""One override: another backbone, and what follows it rewired, in configs of detrex's and detectron2's shape."""

import copy
import logging

import pytest
import torch
import torchvision
from torch import nn

import detrex_backbones
from detrex_backbones import (
    FeatureExtractor,
    ShapeSpec,
    TimmBackbone,
    TorchvisionBackbone,
    get_backbone,
    get_config,
    instantiate,
    list_backbones,
    swap_backbone,
)
from detrex_backbones.checkpoint.fetch import cache_path, find_weight
from detrex_backbones.config import LazyCall as L
from detrex_backbones.config.nodes import to_plain
from detrex_backbones.errors import (
    ArgumentError,
    CheckpointFileError,
    CheckpointMatchError,
    ConfigError,
    ConfigKeyError,
    ConfigTypeError,
)
from detrex_backbones.zoo.backbone_names import weights_of
from detrex_backbones.zoo.meta_build import build_on_meta
from tests.swap_models import BGR, Pyramid, TheirShape, config, detr, dino, resnet, retinanet, runs

RESNETS = ["resnet18", "resnet/resnet50.py", "gluon/resnet50_v1d"]
TIMM = ["timm/convnext_atto", "timm/resnet18", "timm/swin_tiny_patch4_window7_224", "timm/efficientnet_b0"]


@pytest.mark.few(1)
@pytest.mark.parametrize("shape", [ShapeSpec, TheirShape])
@pytest.mark.parametrize("name", [*RESNETS, *TIMM])
def test_the_neck_of_a_dino(name, shape):
    cfg = dino(shape)
    assert runs(cfg) == [(256, 8, 8), (256, 4, 4), (256, 2, 2)]
    swap_backbone(cfg, name)
    assert runs(cfg, 224) == [(256, 28, 28), (256, 14, 14), (256, 7, 7)]
    shapes = instantiate_backbone(cfg).output_shape()
    neck = cfg.model.neck
    assert list(neck.in_features) == list(neck.input_shapes) == list(shapes)
    assert {key: value.channels for key, value in neck.input_shapes.items()} == {
        key: value.channels for key, value in shapes.items()
    }
    assert [value.stride for value in neck.input_shapes.values()] == [None] * 3
    assert neck.num_outs == 4
    assert to_plain(cfg.model.pixel_mean) == [123.675, 116.28, 103.53] and cfg.model.input_format == "RGB"
    assert cfg.train.init_checkpoint.partition("://")[0] in ("torchvision", "gluon", "timm")


def instantiate_backbone(cfg):
    with torch.device("meta"):
        return instantiate(cfg.model.backbone)


def test_a_dino_with_dc5_keeps_its_names():
    cfg = dino()
    swap_backbone(cfg, "resnet101-dc5")
    assert runs(cfg) == [(256, 8, 8), (256, 4, 4), (256, 4, 4)]
    assert cfg.model.backbone.stages.dilation_style == "detectron2"
    assert list(cfg.model.backbone.out_features) == ["res3", "res4", "res5"]
    swap_backbone(cfg, "resnet50")
    assert runs(cfg) == [(256, 8, 8), (256, 4, 4), (256, 2, 2)]


@pytest.mark.parametrize(
    ("name", "feature", "channels", "side"),
    [("resnet18", "res5", 512, 2), ("resnet50-dc5", "res5", 2048, 4), ("timm/convnext_atto", "p3", 320, 2)],
)
def test_the_channels_of_a_detr(name, feature, channels, side):
    cfg = detr()
    swap_backbone(cfg, name)
    assert (list(cfg.model.in_features), cfg.model.in_channels) == ([feature], channels)
    assert runs(cfg) == [(256, side, side)]
    assert "input_format" not in cfg.model


@pytest.mark.few(1)
@pytest.mark.parametrize("name", [*RESNETS, *TIMM])
def test_the_pyramid_of_a_retinanet(name):
    cfg = retinanet()
    swap_backbone(cfg, name)
    assert runs(cfg, 224) == [(256, 28, 28), (256, 14, 14), (256, 7, 7), (256, 4, 4)]
    assert cfg.model.backbone._target_ is Pyramid
    assert list(cfg.model.head_in_features) == ["p3", "p4", "p5", "p6"]
    # And back: timm's names look like those of the pyramid's outputs.
    swap_backbone(cfg, "resnet50")
    assert list(cfg.model.backbone.in_features) == ["res3", "res4", "res5"]
    assert list(cfg.model.head_in_features) == ["p3", "p4", "p5", "p6"]
    assert runs(cfg, 224) == [(256, 28, 28), (256, 14, 14), (256, 7, 7), (256, 4, 4)]


@pytest.mark.slow
def test_a_feature_extractor_gets_weights_and_pixels():
    cfg = get_config("resnet/resnet50")
    del cfg["train"]
    changes = swap_backbone(cfg, "timm/mobilenetv3_large_100.miil_in21k")
    assert cfg.train.init_checkpoint == "timm://mobilenetv3_large_100.miil_in21k"
    assert to_plain(cfg.model.pixel_mean) == [0, 0, 0] and to_plain(cfg.model.pixel_std) == [255, 255, 255]
    assert [change.path for change in changes] == [
        "model.backbone",
        "model.pixel_mean",
        "model.pixel_std",
        "train.init_checkpoint",
    ]
    assert str(changes[1]) == "model.pixel_mean: [123.675, 116.28, 103.53] -> [0.0, 0.0, 0.0]"
    strides = [shape.stride for shape in instantiate_backbone(cfg).output_shape().values()]
    assert strides == [4, 8, 16, 32]


def test_changes_are_lines_and_logged(caplog):
    with caplog.at_level(logging.INFO, "detrex_backbones.zoo.swap"):
        changes = swap_backbone(dino(), "resnet18")
    assert [record.getMessage() for record in caplog.records] == [str(change) for change in changes]
    assert str(changes[1]) == (
        "model.neck.input_shapes: {res3: 512, res4: 1024, res5: 2048} -> {res3: 128, res4: 256, res5: 512}"
    )
    assert not any(change.path == "model.neck.in_features" for change in changes)


def test_without_pretrained_weights():
    cfg = dino()
    swap_backbone(cfg, "resnet18", pretrained=False)
    assert cfg.train.init_checkpoint == ""


@pytest.mark.parametrize("name", ["resnet18", "timm/resnet18"])
@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_norm_freeze_at_and_channels_are_carried_over(name, norm):
    cfg = get_config("resnet/resnet50")
    backbone = cfg.model.backbone
    backbone.stem.norm = backbone.stages.norm = norm
    backbone.stem.in_channels, backbone.freeze_at = 4, 2
    cfg.model.pixel_mean, cfg.model.pixel_std = [1, 2, 3, 4], [1, 1, 1, 1]
    swap_backbone(cfg, name)
    model = instantiate(cfg.model.backbone)
    first = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    assert first.in_channels == 4
    last = [layer for layer in model.modules() if "BatchNorm" in type(layer).__name__][-1]
    assert type(last).__name__ == ("FrozenBatchNorm2d" if norm == "FrozenBN" else "BatchNorm2d")
    assert not first.weight.requires_grad
    assert cfg.model.backbone.freeze_at == 2
    assert to_plain(cfg.model.pixel_mean) == [1, 2, 3, 4]  # three numbers would not fit


def with_settings(**arguments):
    """A config whose backbone has these, in the place of a ready config's."""
    cfg = get_config("resnet/resnet50")
    for key, value in arguments.items():
        if key == "norm":
            cfg.model.backbone.stem.norm = cfg.model.backbone.stages.norm = value
        else:
            cfg.model.backbone[key] = value
    return cfg


@pytest.mark.parametrize(
    ("norm", "name", "kind"),
    [
        ("SyncBN", "resnet18", nn.SyncBatchNorm),
        ("SyncBN", "timm/resnet14t", nn.SyncBatchNorm),
        ("GN", "timm/resnet26", nn.GroupNorm),
    ],
)
def test_a_norm_is_carried_over_where_the_network_can_have_it(norm, name, kind):
    cfg = with_settings(norm=norm, freeze_at=0)
    lines = swap_backbone(cfg, name, pretrained=False)
    norms = {type(module) for module in instantiate(cfg.model.backbone).modules() if "Norm" in type(module).__name__}
    assert all(issubclass(one, kind) for one in norms)
    assert not any(change.why for change in lines)


@pytest.mark.parametrize(
    ("arguments", "name", "said"),
    [
        (
            {"norm": "SyncBN"},
            "timm/regnetx_002",
            "backbone.norm: 'SyncBN' -> None (timm/regnetx_002 has BatchNormAct2d",
        ),
        ({"norm": "GN"}, "timm/convnext_atto", "backbone.norm: 'GN' -> None (timm/convnext_atto has LayerNorm"),
    ],
)
def test_what_a_network_cannot_have_is_said(arguments, name, said, caplog):
    cfg = with_settings(**arguments)
    lines = [str(change) for change in swap_backbone(cfg, name, pretrained=False)]
    assert any(said in line for line in lines)
    assert any(said in line for line in caplog.messages)


def test_freezing_is_carried_over_to_a_network_of_torchvision():
    cfg = with_settings(freeze_at=2)
    swap_backbone(cfg, L(TorchvisionBackbone)(model_name="resnet18"), pretrained=False)
    assert cfg.model.backbone.freeze_at == 2
    frozen = {name for name, value in instantiate(cfg.model.backbone).named_parameters() if not value.requires_grad}
    assert any("layer1." in name for name in frozen) and not any("layer2." in name for name in frozen)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [("resnet18", "checkpoint_stages", True), ("timm/convnext_atto", "checkpoint_stages", True)],
)
def test_recomputation_is_carried_over(name, key, value):
    cfg = with_settings(checkpoint_stages=["res2", "res3"])
    swap_backbone(cfg, name, pretrained=False)
    assert cfg.model.backbone[key] == value
    assert instantiate(cfg.model.backbone)


def test_drop_path_is_carried_over_or_said():
    cfg = get_config("resnet/resnet50")
    cfg.model.backbone = L(TimmBackbone)(model_name="convnext_atto", drop_path_rate=0.2, out_indices=(0, 1, 2, 3))
    swap_backbone(cfg, "timm/resnet14t", pretrained=False)
    assert cfg.model.backbone.drop_path_rate == 0.2
    lines = [str(change) for change in swap_backbone(cfg, "resnet18", pretrained=False)]
    assert any("backbone.drop_path_rate: 0.2 -> None (resnet/resnet18 has no drop path)" in line for line in lines)


def test_from_timm_to_a_resnet():
    cfg = get_config("timm/resnet152d")
    swap_backbone(cfg, "resnet18")
    assert list(cfg.model.backbone.out_features) == ["res2", "res3", "res4"]
    assert cfg.model.backbone.stem.norm == cfg.model.backbone.stages.norm == "FrozenBN"


def test_a_node_keeps_what_it_says():
    cfg = dino()
    node = L(TimmBackbone)(model_name="resnet18", out_indices=[4, 3, 2, 1], norm_layer=None)
    before = copy.deepcopy(node)
    swap_backbone(cfg, node)
    assert node == before
    assert cfg.model.backbone.norm_layer is None
    assert to_plain(cfg.model.backbone.out_indices) == [2, 3, 4]
    assert runs(cfg) == [(256, 8, 8), (256, 4, 4), (256, 2, 2)]
    swap_backbone(cfg, L(FeatureExtractor)(backbone=resnet(["res5"]), **BGR))
    assert cfg.model.input_format == "BGR" and cfg.train.init_checkpoint == ""
    assert runs(cfg) == [(256, 8, 8), (256, 4, 4), (256, 2, 2)]


def test_a_config_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from detrex_backbones import get_config\n"
        "cfg = get_config('resnet/resnet18')\nmodel, train = cfg.model, cfg.train\n"
        "train.init_checkpoint = 'mine.pth'\nmodel.pixel_mean = [1, 2, 3]\n"
    )
    cfg = dino()
    swap_backbone(cfg, path)
    assert cfg.train.init_checkpoint == "mine.pth" and list(cfg.model.pixel_mean) == [1, 2, 3]
    assert runs(cfg) == [(256, 8, 8), (256, 4, 4), (256, 2, 2)]


def test_a_model_that_is_a_backbone():
    cfg = config(resnet())
    swap_backbone(cfg, "timm/convnext_atto")
    assert cfg.model._target_ is TimmBackbone and to_plain(cfg.model.out_indices) == [1, 2, 3]


@pytest.mark.parametrize(
    ("backbone", "error", "text"),
    [
        ("resnet51", ArgumentError, "'resnet50'"),
        ("timm/convnext_tinny", ArgumentError, "Did you mean 'convnext_tiny'"),
        ("timm/resnet50.a1_in1kk", ArgumentError, "Did you mean 'resnet50.a1_in1k'"),
        ("convnext_tiny", ArgumentError, "'timm/convnext_tiny'"),
        ("resnext50_32x4d", ArgumentError, "'gluon/resnext50_32x4d' or 'resnet/resnext50_32x4d'"),
        ("missing.py", ArgumentError, "must exist"),
        ("timm/efficientvit_m0", ArgumentError, "has no map of stride 8 for res3 of model.neck.input_shapes"),
        (3, ConfigTypeError, "not 3 of type int"),
        (L(nn.Conv2d)(in_channels=3, out_channels=4, kernel_size=1), ArgumentError, "output_shape"),
    ],
)
def test_bad_input_changes_nothing(backbone, error, text):
    cfg = dino()
    before = copy.deepcopy(cfg)
    with pytest.raises(error) as caught:
        swap_backbone(cfg, backbone)
    assert text in str(caught.value)
    assert cfg == before


def test_dc5_under_a_pyramid_is_refused():
    cfg = retinanet()
    before = copy.deepcopy(cfg)
    with pytest.raises(ArgumentError, match="no map of stride 32"):
        swap_backbone(cfg, "resnet50-dc5")
    assert cfg == before


def test_configs_that_have_nothing_to_swap():
    cfg = get_config("resnet/resnet50")
    del cfg["model"]
    with pytest.raises(ConfigKeyError, match="has a 'model'"):
        swap_backbone(cfg, "resnet18")
    with pytest.raises(ConfigKeyError, match="no 'backbone' to swap"):
        swap_backbone(config(L(nn.Conv2d)(in_channels=3, out_channels=4, kernel_size=1)), "resnet18")
    frozen = dino()
    frozen.model._set_flag("readonly", True)
    before = copy.deepcopy(frozen)
    with pytest.raises(ConfigError, match="read-only"):
        swap_backbone(frozen, "resnet18")
    assert frozen == before


# Names.


def test_names():
    assert set(list_backbones("*dc5*")) >= {
        "resnet50-dc5",
        "resnet101-dc5-torchvision",
        "resnet/resnet50_dc5_detectron2",
    }
    assert "gluon/resnet50_v1d" in list_backbones("v1d")
    assert "timm/convnext_tiny" in list_backbones("timm/convnext_*")
    assert not [name for name in list_backbones() if name.endswith(".py")]
    assert list_backbones("nothing") == []


@pytest.mark.parametrize(
    ("name", "style"),
    [("resnet50-dc5", (2, 2)), ("resnet50-dc5-detectron2", (2, 2)), ("resnet50-dc5-torchvision", (1, 1))],
)
def test_dc5_by_name(name, style):
    with torch.device("meta"):
        assert get_backbone(name).res5[0].conv2.dilation == style


def test_arguments_reach_whoever_takes_them():
    with torch.device("meta"):
        model = get_backbone("resnet50-dc5", norm="BN", freeze_at=0, in_channels=4, out_features=["res5"], depth=101)
        timm = get_backbone("timm/resnet18", norm="FrozenBN", out_indices=(1,))
    assert type(model.stem.conv1.norm) is type(model.res5[0].conv1.norm) is nn.BatchNorm2d
    assert model.stem.conv1.in_channels == 4 and len(model.res4) == 23
    assert type(timm.timm_model.bn1).__name__ == "FrozenBatchNorm2d"
    with pytest.raises(ArgumentError, match=r"takes no argument 'nrm'\. Did you mean 'norm'"):
        get_backbone("resnet50", nrm="BN")
    with pytest.raises(ArgumentError, match="no weights are known"):
        get_backbone("gluon/resnet50_v1e", pretrained=True)
    with pytest.raises(ArgumentError, match="takes a name"):
        get_backbone(resnet())


def test_known_weights_best_first():
    assert [weight.name for weight in weights_of("resnet/resnet50_dc5_torchvision")][:2] == [
        "torchvision://resnet50-v2",
        "torchvision://resnet50-v1",
    ]
    assert [weight.name for weight in weights_of("gluon/resnet50_v1d.py")][:1] == ["gluon://resnet50_v1d"]


def test_get_backbone_with_its_weights(tmp_path, monkeypatch):
    """The file lies in the cache, as it does once it has been fetched."""
    monkeypatch.setenv("DETREX_BACKBONES_CACHE", str(tmp_path))
    file = cache_path(find_weight("torchvision://resnet18-v1").url)
    file.parent.mkdir(parents=True)
    theirs = torchvision.models.resnet18().eval()
    torch.save(theirs.state_dict(), file)
    model = get_backbone("resnet18", pretrained=True, out_features=["res5"]).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = theirs.layer4(
            theirs.layer3(theirs.layer2(theirs.layer1(theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image)))))))
        )
        torch.testing.assert_close(model(image)["res5"], expected, rtol=1e-4, atol=1e-4)


def test_weights_that_dont_fit_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("DETREX_BACKBONES_CACHE", str(tmp_path))
    file = cache_path(find_weight("torchvision://resnet18-v1").url)
    file.parent.mkdir(parents=True)
    torch.save(torchvision.models.resnet34().state_dict(), file)
    with pytest.raises(CheckpointMatchError):
        get_backbone("resnet18", pretrained=True, depth=50)
    file.write_bytes(b"<html>")
    with pytest.raises(CheckpointFileError, match=str(file.name)):
        get_backbone("resnet18", pretrained=True)


@pytest.mark.parametrize("wrong", ["", "resnet50-dc6", "timm/", "timm/resnet50.nobody", "torchvision://resnet50-v2"])
def test_names_that_are_none(wrong):
    with pytest.raises(ArgumentError):
        get_backbone(wrong)


def test_a_freeze_at_that_the_new_network_has_no_stage_for_is_not_carried_over(caplog):
    cfg = get_config("resnet/resnet50")
    cfg.model.backbone.freeze_at, cfg.model.backbone.out_features = 5, ["res4"]
    with caplog.at_level(logging.WARNING, "detrex_backbones.zoo.swap"):
        swap_backbone(cfg, "timm/levit_128s", pretrained=False)
    assert cfg.model.backbone.freeze_at == 0
    assert "freeze_at=5 is not carried over: freeze_at=5 is out of range for levit_128s" in caplog.text


def test_an_error_of_another_cause_is_told_as_it_is():
    cfg = get_config("resnet/resnet50")
    cfg.model.backbone.freeze_at = 2
    node = L(TimmBackbone)(model_name="resnet18", out_indices=[9])
    with pytest.raises(ArgumentError, match=r"out_indices=\[9\]"):
        swap_backbone(cfg, node)


@pytest.mark.few(2)
@pytest.mark.parametrize("frozen", range(-1, 4))
@pytest.mark.parametrize("kind", ["SwinTransformer", "FocalNet", "ConvNeXt", "PyramidVisionTransformer"])
def test_as_many_stages_are_frozen_after_a_swap_as_before(kind, frozen):
    """They count `frozen_stages` in two ways."""
    cfg = with_settings()
    cfg.model.backbone = L(getattr(detrex_backbones, kind))(frozen_stages=frozen, out_indices=(1, 2, 3))
    with torch.device("meta"):
        before = instantiate(cfg.model.backbone)
        swap_backbone(cfg, "timm/resnet18", pretrained=False)
        after = instantiate(cfg.model.backbone).timm_model
    stages = [getattr(before, name, None) for name in ("layers", "stages")]
    stages = next((found for found in stages if found is not None), None) or [
        before.get_submodule(f"block{index}") for index in range(1, 5)
    ]
    assert [not next(stage.parameters()).requires_grad for stage in stages] == [
        not next(after.get_submodule(f"layer{index}").parameters()).requires_grad for index in range(1, 5)
    ]
    first = next(iter(before.parameters())) if kind != "ConvNeXt" else before.downsample_layers[0][0].weight
    assert first.requires_grad == after.conv1.weight.requires_grad


@pytest.mark.parametrize(
    ("name", "frozen"),
    [
        ("timm/convnext_atto", False),
        ("timm/efficientnet_b0", True),
        ("timm/resnet18", True),
        ("timm/vit_tiny_patch16_224", False),
    ],
)
def test_frozen_norms_are_written_only_where_there_are_some(name, frozen):
    cfg = get_config("resnet/resnet18")
    swap_backbone(cfg, name, pyramid=False)
    assert (cfg.model.backbone.get("norm_layer") == "FrozenBN") is frozen
    norms = {type(module).__name__ for module in build_on_meta(cfg.model).modules() if "Norm" in type(module).__name__}
    assert all(("Frozen" in norm) is frozen for norm in norms), norms
