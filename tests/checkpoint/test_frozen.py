"""Weights that are frozen at values nobody loaded are named."""

import logging

import torch
import torchvision

from detrex_backbones import LazyConfig, build_model, get_config
from detrex_backbones.checkpoint.load import load_checkpoint
from detrex_backbones.checkpoint.match.frozen_modules import frozen_but_not_loaded
from tests.checkpoint.nets import ours, weights


def cfg(*overrides):
    common = ["model.backbone.stages.depth=18", "train.device=cpu"]
    return LazyConfig.apply_overrides(get_config("resnet/resnet50.py"), [*common, *overrides])


def test_everything_frozen_is_named_without_a_checkpoint():
    net = ours(norm="BN")
    assert frozen_but_not_loaded(net, None) == []
    net.freeze(2)
    found = frozen_but_not_loaded(net, None)
    assert found[:2] == ["stem.conv1", "stem.conv1.norm"]
    assert {name.partition(".")[0] for name in found} == {"stem", "res2"}


def test_a_whole_load_leaves_nothing_to_name(tmp_path):
    torch.save(weights(), tmp_path / "r18.pth")
    net = ours()
    net.freeze(5)
    report = load_checkpoint(net, tmp_path / "r18.pth")
    assert frozen_but_not_loaded(net, report) == []


def test_what_may_be_missing_and_is_frozen_is_named(tmp_path):
    state = {key: value for key, value in weights().items() if not key.startswith("layer4.1.bn2.")}
    torch.save(state, tmp_path / "r18.pth")
    net = ours()
    report = load_checkpoint(net, tmp_path / "r18.pth", allow_missing=["res5.1.conv2.norm.*"])
    assert frozen_but_not_loaded(net, report) == ["res5.1.conv2.norm"]


def test_build_model_warns_of_it(tmp_path, caplog):
    path = tmp_path / "r18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    with caplog.at_level(logging.WARNING):
        build_model(cfg())
        assert "frozen, but not loaded from a checkpoint: backbone.stem.conv1, backbone.stem.conv1.norm" in caplog.text
        caplog.clear()
        build_model(cfg(f"train.init_checkpoint={path}"))
    assert "frozen" not in caplog.text


def test_load_options_of_a_config(tmp_path):
    path = tmp_path / "r18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    four = ["model.backbone.stem.in_channels=4", "model.pixel_mean=[1,1,1,1]", "model.pixel_std=[1,1,1,1]"]
    options = ["train.load_options.stem_adapt=repeat", "train.load_options.check_preprocessing=off"]
    model = build_model(cfg(f"train.init_checkpoint={path}", *four, *options))
    assert model.backbone.stem.conv1.weight.shape == (64, 4, 7, 7)
