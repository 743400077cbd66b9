"""Ready configs, and build_model: from a config to a model on its device with its weights."""

import copy
import logging
import pickle
from collections import Counter

import pytest
import torch
from torch import nn

from detrex_backbones import LazyCall, LazyConfig, TorchvisionFPN, build_model, get_config, instantiate, list_configs
from detrex_backbones.checkpoint.fetch.catalog import weight
from detrex_backbones.errors import (
    CheckpointFileError,
    CheckpointMatchError,
    ConfigError,
    ConfigImportError,
    ConfigKeyError,
    DeviceError,
)
from detrex_backbones.zoo import build, build_model_with_report, config_file
from tests.checkpoint.nets import converted, snapshot, theirs, weights
from tests.reference import assert_close, noise, torchvision_maps

LOGGER = "detrex_backbones.zoo.build"

RESNET_STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}


@pytest.fixture
def r18(tmp_path):
    """A config of ResNet-18 on the CPU, with torchvision's weights in a file."""
    path = tmp_path / "r18.pth"
    torch.save(weights(), path)
    cfg = get_config("resnet/resnet18.py")
    cfg.train.device = "cpu"
    cfg.train.init_checkpoint = str(path)
    yield cfg
    path.unlink()


def assert_torchvisions_features(model, name, image=None):
    """The maps of a photo are those that torchvision's network makes of the same preprocessed photo."""
    image = noise(49, 65, 3).mul(60).add(120).clamp(0, 255).byte().numpy() if image is None else image
    model.eval()
    with torch.no_grad():
        batch = model.preprocess([image])
        expected = torchvision_maps(theirs(name), batch)
        for key, value in model([image]).items():
            assert_close(value, expected[key])
    return batch


# Ready configs.


def test_the_list_is_sorted_and_has_no_shared_parts():
    names = list_configs()
    assert names == sorted(set(names))
    assert {"resnet/resnet50.py", "resnet/resnet50_dc5_torchvision.py", "timm/resnet152d.py"} <= set(names)
    assert not any(name.startswith("common/") for name in names)
    assert all(config_file(name).is_file() for name in names)


@pytest.mark.parametrize("name", ["resnet/resnet50.py", "resnet/resnet50"])
def test_the_extension_may_be_left_out(name):
    assert get_config(name).model.backbone.stages.depth == 50


@pytest.mark.parametrize(
    "name, near",
    [
        ("resnet/resnet5.py", "resnet/resnet50.py"),
        ("resnet/resnet-101", "resnet/resnet101.py"),
        ("timm/resnet152", "timm/resnet152d.py"),
        ("common/resnet.py", ""),
        ("../setup.py", ""),
        ("", ""),
    ],
)
def test_an_unknown_config(name, near):
    with pytest.raises(ConfigImportError, match="there is no ready config") as caught:
        get_config(name)
    assert repr(name) in str(caught.value)
    assert near in str(caught.value)
    assert f"`detrex-backbones list` shows all {len(list_configs())}." in str(caught.value)


@pytest.mark.parametrize(
    "name", ["common/train.py", "common/data/coco_detr.py", "COCO-Detection/retinanet_R_50_FPN_1x.py"]
)
def test_a_config_of_detrex_or_detectron2_is_pointed_to_theirs(name):
    with pytest.raises(ConfigImportError, match=r"from detectron2\.model_zoo import get_config") as caught:
        get_config(name)
    assert ("detrex.config" in str(caught.value)) == name.startswith("common/")


def test_a_config_comes_afresh_each_time():
    first = get_config("resnet/resnet50.py")
    before = copy.deepcopy(first)
    first.model.backbone.stages.depth = 101
    first.model.pixel_mean[0] = 0
    first.train.init_checkpoint = "x"
    assert get_config("resnet/resnet50.py") == before
    # Shared parts too: another config is made of the same ones.
    assert get_config("resnet/resnet18.py").train.init_checkpoint == ""
    assert get_config("resnet/resnet18.py").model.pixel_mean == before.model.pixel_mean


BACKBONES = [name for name in list_configs() if not name.startswith("detectors/")]


@pytest.mark.few(3)
@pytest.mark.parametrize("name", BACKBONES)
def test_every_ready_config_builds_and_its_maps_have_the_strides_it_says(name):
    cfg = get_config(name)
    assert dict(cfg.train) == {"device": "", "init_checkpoint": "", "load_options": {}}
    with torch.device("meta"):
        model = instantiate(cfg.model).eval()
    shapes = model.output_shape()
    if name.startswith("resnet/"):
        strides = {**RESNET_STRIDES, "res5": 16} if "_dc5_" in name else RESNET_STRIDES
        assert {key: shape.stride for key, shape in shapes.items()} == strides
    height, width = {"rf_detr": (56, 112), "lw_detr": (64, 128)}.get(name.partition("/")[0], (64, 96))
    maps = model.backbone(torch.empty(1, 3, height, width, device="meta"))
    assert list(maps) == list(shapes)
    for key, value in maps.items():
        stride = shapes[key].stride
        assert tuple(value.shape) == (1, shapes[key].channels, -(-height // stride), -(-width // stride)), key


def test_the_preprocessing_of_ready_configs_is_the_catalogues():
    written = LazyConfig.load(config_file("resnet/resnet18").parents[1] / "common" / "preprocessing.py")
    for name in ("imagenet", "caffe2", "ssd", "yolo"):
        known = getattr(weight, name.upper())
        (own,) = [value for key, value in written.items() if key.startswith(f"{name}_")]
        assert (tuple(own.pixel_mean), tuple(own.pixel_std)) == (known.pixel_mean, known.pixel_std)
        assert own.input_format == known.input_format


# build_model.


def test_weights_are_loaded(r18):
    model, report = build_model_with_report(r18)
    assert (report.source, report.scope, report.coverage) == ("torchvision", "backbone", 1)
    assert_torchvisions_features(model, "resnet18")
    assert {value.device.type for value in model.state_dict().values()} == {"cpu"}
    assert snapshot(build_model(r18)) == snapshot(model)


def test_no_random_weights_are_drawn_where_all_are_loaded(r18):
    torch.manual_seed(0)
    build_model(r18)
    assert torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(0).get_state())


def test_what_a_checkpoint_leaves_is_drawn_and_nothing_else(r18):
    weights = torch.load(r18.train.init_checkpoint)
    torch.save({name: value for name, value in weights.items() if "layer4.1" not in name}, r18.train.init_checkpoint)
    r18.train.load_options = {"allow_missing": ["res5.1.*"]}
    torch.manual_seed(0)
    model, report = build_model_with_report(r18)
    after = torch.get_rng_state()
    own = model.state_dict()
    left = [name for name in own if ".res5.1." in name]
    assert sorted(report.missing) == sorted(left)
    torch.manual_seed(0)
    for name in left:  # as He et al. draw convolutions
        if own[name].dim() == 4:
            expected = nn.init.kaiming_normal_(torch.empty(own[name].shape), mode="fan_out", nonlinearity="relu")
            assert torch.equal(own[name], expected), name
    assert torch.equal(torch.get_rng_state(), after)
    assert_close(model.backbone.stem.conv1.weight, weights["conv1.weight"], 0)


def test_a_detector_is_built_once_and_its_file_read_once(r18, monkeypatch):
    r18.model.backbone = LazyCall(TorchvisionFPN)(bottom_up=r18.model.backbone)
    calls = Counter()

    def counted(name, usual):
        def call(*args, **kwargs):
            calls[name] += 1
            return usual(*args, **kwargs)

        return call

    for name in ("instantiate", "load_checkpoint"):
        monkeypatch.setattr(build, name, counted(name, getattr(build, name)))
    torch.manual_seed(0)
    model, report = build_model_with_report(r18)
    assert calls == {"instantiate": 1, "load_checkpoint": 1}
    assert report.scope == "backbone.bottom_up"
    own = model.state_dict()
    bounds = {
        name: (3 / value[0].numel()) ** 0.5 for name, value in own.items() if ".fpn." in name and value.dim() == 4
    }
    # Caffe2's "Xavier", which goes right up to its bounds.
    assert bounds and all(0.98 * most < own[name].abs().max() < 1.001 * most for name, most in bounds.items())
    assert_close(own["backbone.bottom_up.stem.conv1.weight"], torch.load(r18.train.init_checkpoint)["conv1.weight"], 0)


def test_a_seed_draws_the_same_pyramid_whichever_backbone_is_loaded(r18, tmp_path):
    r34 = copy.deepcopy(r18)
    r34.model.backbone.stages = get_config("resnet/resnet34.py").model.backbone.stages
    r34.train.init_checkpoint = str(tmp_path / "r34.pth")
    torch.save(weights("resnet34"), r34.train.init_checkpoint)
    pyramids = []
    for cfg in (r18, r34):
        cfg.model.backbone = LazyCall(TorchvisionFPN)(bottom_up=cfg.model.backbone)
        torch.manual_seed(0)
        own = build_model(cfg).state_dict()
        pyramids.append({name: value for name, value in own.items() if ".fpn." in name})
    assert pyramids[0] and pyramids[0].keys() == pyramids[1].keys()
    assert all(torch.equal(value, pyramids[1][name]) for name, value in pyramids[0].items())


def test_without_a_checkpoint_the_weights_are_random_and_that_is_said_once(caplog):
    cfg = get_config("resnet/resnet18.py")
    cfg.train.device = "cpu"
    with caplog.at_level(logging.INFO, LOGGER):
        model, report = build_model_with_report(cfg)
    assert report is None
    assert model.training
    said = [record for record in caplog.records if "random" in record.getMessage()]
    assert [(record.levelname, record.getMessage()) for record in said] == [
        ("WARNING", "train.init_checkpoint is empty: the weights are random")
    ]


def test_with_a_checkpoint_nothing_is_said_of_random_weights(r18, caplog):
    with caplog.at_level(logging.INFO, "detrex_backbones"):
        build_model(r18)
    assert "random" not in caplog.text
    assert "loaded a checkpoint" in caplog.text


def test_a_config_of_a_model_alone():
    cfg = get_config("resnet/resnet18.py")
    del cfg["train"]
    model = build_model(cfg)
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert {value.device.type for value in model.state_dict().values()} == {expected}


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["", "cuda", "cuda:0", 0])
def test_on_the_gpu(r18, device):
    r18.train.device = device
    model = build_model(r18)
    assert {str(value.device) for value in model.state_dict().values()} == {"cuda:0"}
    assert_torchvisions_features(model.cpu(), "resnet18")


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "cpu0", "GPU:0", "3", 2.5, ["cpu"], -1])
def test_a_device_that_is_not_there(r18, monkeypatch, device):
    monkeypatch.setattr("detrex_backbones.zoo.build.instantiate", lambda node: pytest.fail("was built first"))
    r18.train.device = device
    with pytest.raises(DeviceError, match=r"isn't there \(") as caught:
        build_model(r18)
    text = str(caught.value)
    assert f"train.device={device!r}" in text
    assert "On this machine: cpu" in text
    assert "Leave it empty for the best one." in text
    assert isinstance(caught.value, RuntimeError)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:0", 0])
def test_a_gpu_that_is_not_there(r18, device):
    r18.train.device = device
    with pytest.raises(DeviceError, match=r"On this machine: cpu\."):
        build_model(r18)


@pytest.mark.parametrize("key", ["model", None])
def test_a_config_without_a_model(key):
    cfg = get_config("resnet/resnet18.py")
    del cfg["model"]
    if key is None:
        del cfg["train"]
    with pytest.raises(ConfigKeyError, match=f"no 'model' to build. It has: {'nothing' if key is None else 'train'}"):
        build_model(cfg)


@pytest.mark.parametrize("damage", ["missing", "text", "another architecture"])
def test_a_bad_checkpoint_gives_no_model_and_leaves_the_config_as_it_was(r18, tmp_path, damage):
    path = tmp_path / "bad.pth"
    if damage == "text":
        path.write_text("text")
    elif damage == "another architecture":
        torch.save(theirs("resnet50").state_dict(), path)
    r18.train.init_checkpoint = str(path)
    before = copy.deepcopy(r18)
    with pytest.raises(CheckpointMatchError if "arch" in damage else CheckpointFileError, match=str(path)):
        build_model(r18)
    assert r18 == before
    r18.train.init_checkpoint = str(tmp_path / "r18.pth")
    assert_torchvisions_features(build_model(r18), "resnet18")


# Configs written for detrex.

DETREX_RESNET = """
import torch.nn as nn

from {config} import LazyCall as L
from {backbone} import ResNet, BasicStem, FeatureExtractor

model = L(FeatureExtractor)(
    backbone=L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=L(ResNet.make_default_stages)(
            depth=50,
            stride_in_1x1=False,
            norm="FrozenBN",
        ),
        out_features=["res2", "res3", "res4", "res5"],
        freeze_at=1,
    ),
    pixel_mean=[123.675, 116.280, 103.530],
    pixel_std=[58.395, 57.120, 57.375],
)
"""

DETREX_DC5 = """
from {config} import LazyCall as L
from {backbone} import BasicStem, ResNet, make_stage

model = L(ResNet)(
    stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
    stages=L(make_stage)(
        depth=50,
        stride_in_1x1=False,
        norm="FrozenBN",
        res5_dilation=2,
    ),
    out_features=["res2", "res3", "res4", "res5"],
    freeze_at=1,
)
"""

DETREX_TIMM = """
from {config} import LazyCall as L
from {backbone} import FrozenBatchNorm2d, TimmBackbone

model = L(TimmBackbone)(
    model_name="resnet18",
    features_only=True,
    pretrained=False,
    in_channels=3,
    out_indices=(1, 2, 3),
    norm_layer=FrozenBatchNorm2d,
)
"""


def write_config(tmp_path, text):
    path = tmp_path / "backbone.py"
    path.write_text(text.format(config="detrex_backbones.config", backbone="detrex_backbones"))
    return path


def test_a_detrex_config_with_its_import_lines_changed(tmp_path):
    checkpoint = tmp_path / "r50.pkl"
    checkpoint.write_bytes(pickle.dumps(converted(weights("resnet50"))))
    cfg = LazyConfig.load(str(write_config(tmp_path, DETREX_RESNET)))
    cfg.train = {"device": "cpu", "init_checkpoint": str(checkpoint)}
    model, report = build_model_with_report(cfg)
    assert report.coverage == 1
    assert_torchvisions_features(model, "resnet50")
    frozen = {key for key, value in model.named_parameters() if not value.requires_grad}
    assert frozen == {"backbone.stem.conv1.weight"}


def test_a_detrex_config_of_dc5_is_dilated_detectron2s_way(tmp_path):
    cfg = LazyConfig.load(str(write_config(tmp_path, DETREX_DC5)))
    with torch.device("meta"):
        model = instantiate(cfg.model)
    assert {key: shape.stride for key, shape in model.output_shape().items()} == {**RESNET_STRIDES, "res5": 16}
    assert [block.conv2.dilation for block in model.res5] == [(2, 2)] * 3


def test_a_detrex_config_of_a_timm_backbone(tmp_path):
    checkpoint = tmp_path / "resnet18.pth"
    torch.save(weights(), checkpoint)
    cfg = LazyConfig.load(str(write_config(tmp_path, DETREX_TIMM)))
    cfg.train = {"device": "cpu", "init_checkpoint": str(checkpoint)}
    model, report = build_model_with_report(cfg)
    assert report.source == "as stored"
    image = noise(1, 3, 49, 65)
    expected = torchvision_maps(theirs("resnet18"), image)
    with torch.no_grad():
        maps = model.eval()(image)
    for ours, name in {"p1": "res2", "p2": "res3", "p3": "res4"}.items():
        assert_close(maps[ours], expected[name])


def test_the_converters_pickle_of_a_resnet_101_by_overrides(tmp_path):
    """detectron2's converter's file, the depth and the pixel mean by override: the path of detrex's users."""
    checkpoint = tmp_path / "r101_v1.pkl"
    checkpoint.write_bytes(pickle.dumps(converted(weights("resnet101"))))
    cfg = get_config("resnet/resnet50.py")
    LazyConfig.apply_overrides(
        cfg,
        [
            "model.backbone.stages.depth=101",
            "model.pixel_mean=[103.53, 116.28, 123.675]",
            "model.pixel_std=[1, 1, 1]",
            "train.device=cpu",
            f"train.init_checkpoint={checkpoint}",
        ],
    )
    model, report = build_model_with_report(cfg)
    assert (report.scope, report.coverage) == ("backbone", 1)
    assert set(report.left_over.values()) == {"head", "batch counter"}
    image = torch.full((3, 32, 32), 150.0)
    batch = assert_torchvisions_features(model, "resnet101", image)
    mean = torch.tensor([103.53, 116.28, 123.675]).reshape(1, 3, 1, 1)
    assert torch.allclose(batch, 150.0 - mean.expand_as(batch))


def test_the_converters_pickle_without_the_override_is_refused(tmp_path):
    checkpoint = tmp_path / "r101_v1.pkl"
    checkpoint.write_bytes(pickle.dumps(converted(weights("resnet101"))))
    cfg = get_config("resnet/resnet50.py")
    LazyConfig.apply_overrides(cfg, [f"train.init_checkpoint={checkpoint}", "train.device=cpu"])
    with pytest.raises(CheckpointMatchError, match="of another architecture"):
        build_model(cfg)


def test_a_typo_in_an_override_changes_nothing(r18):
    before = copy.deepcopy(r18)
    with pytest.raises(ConfigError, match="depth"):
        LazyConfig.apply_overrides(r18, ["model.backbone.stages.dept=101"])
    assert r18 == before
