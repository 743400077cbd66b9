"""What trainers put around a network: wrappers' names in any order and place, containers, averages."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from tests.checkpoint.conventions.files import (
    assert_same,
    load,
    prefixed,
    write_lightning,
    write_mmengine,
    write_timm_training,
    write_torch,
)
from tests.checkpoint.conventions.nets import maps_of, our_resnet
from tests.reference import to_our_names, torchvision_net


@pytest.fixture(scope="module")
def net():
    return torchvision_net("resnet18")


def loaded(net, path, **kwargs):
    model = our_resnet()
    report = load(model, path, **kwargs)
    assert_same(maps_of(model), maps_of(net))
    return report


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "_orig_mod.module.",
        "module._orig_mod.",
        "module.model.",
        "model._orig_mod.backbone.",
        "model.module.backbone._orig_mod.",
        "backbone.body.",
        "student_model.encoder.",
    ],
)
def test_prefix(prefix, net, tmp_path):
    report = loaded(net, write_torch(tmp_path / "file.pth", prefixed(net.state_dict(), prefix)))
    parts = [part for part in prefix.split(".") if part not in ("module", "_orig_mod")]
    assert report.prefix == ".".join(parts)


def test_part_that_was_compiled(net, tmp_path):
    """torch.compile of a submodule stands in the middle of the path."""
    state = {key.replace("layer3.", "layer3._orig_mod."): value for key, value in net.state_dict().items()}
    loaded(net, write_torch(tmp_path / "file.pth", state))


def test_real_wrappers(net, tmp_path):
    wrapped = nn.DataParallel(torch.compile(net))
    state = wrapped.state_dict()
    assert any(key.startswith("module._orig_mod.") for key in state)
    loaded(net, write_torch(tmp_path / "file.pth", state))


def test_averaged_model(net, tmp_path):
    report = loaded(net, write_torch(tmp_path / "file.pth", AveragedModel(net).state_dict()))
    assert report.left_over["n_averaged"] == "bookkeeping"


@pytest.mark.parametrize("attribute", ["model", "net", "backbone", "model.backbone"])
def test_lightning(attribute, net, tmp_path):
    report = loaded(net, write_lightning(tmp_path / "file.ckpt", net.state_dict(), attribute))
    assert (report.container, report.prefix) == ("state_dict", f"{attribute}.")


def test_averages_of_mmengine_are_in_the_state_dict_already(net, tmp_path):
    raw = {f"module.{key}": value + 1 for key, value in prefixed(net.state_dict(), "backbone.").items()}
    more = {"ema_state_dict": {**raw, "steps": torch.tensor(3)}, "param_schedulers": []}
    path = write_mmengine(tmp_path / "file.pth", prefixed(net.state_dict(), "backbone."), **more)
    assert loaded(net, path).format == "torch-legacy"


def test_raw_weights_of_mmengine_where_they_are_asked_for(net, tmp_path):
    other = {key: value + 1 for key, value in net.state_dict().items()}
    averaged = {**prefixed(net.state_dict(), "module.backbone."), "steps": torch.tensor(3)}
    path = write_mmengine(tmp_path / "file.pth", other, ema_state_dict=averaged)
    report = loaded(net, path, container="ema_state_dict")
    assert report.left_over["steps"] == "bookkeeping"


def test_timm_training_prefers_averages(net, tmp_path):
    other = {key: value + 1 for key, value in net.state_dict().items()}
    report = loaded(net, write_timm_training(tmp_path / "file.pth.tar", other, net.state_dict()))
    assert report.container == "state_dict_ema"


def test_detrex_training(net, tmp_path):
    """Its averages are beside the weights, under the same names; nothing says which are better."""
    other = {key: value + 1 for key, value in net.state_dict().items()}
    counted = {**net.state_dict(), "conv1.total_ops": torch.zeros(1), "conv1.total_params": torch.zeros(1)}
    content = {"model": counted, "ema_state": other, "optimizer": {}, "scheduler": {}, "iteration": 7, "trainer": {}}
    report = loaded(net, write_torch(tmp_path / "file.pth", content))
    assert report.container == "model"
    assert report.left_over["conv1.total_ops"] == "bookkeeping"
    report = load(our_resnet(), tmp_path / "file.pth", container="ema_state")
    assert report.container == "ema_state"


def test_detectron2_c4_detector_has_res5_in_its_head(net, tmp_path):
    state = {key: value for key, value in to_our_names(net.state_dict()).items() if not key.startswith("linear.")}
    state = {
        f"roi_heads.{key}" if key.startswith("res5.") else f"backbone.{key}": value for key, value in state.items()
    }
    state |= {"roi_heads.box_predictor.cls_score.weight": torch.ones(81, 4), "pixel_mean": torch.ones(3)}
    report = loaded(net, write_torch(tmp_path / "file.pkl", {"model": state, "__author__": "Detectron2 Model Zoo"}))
    assert (report.source, report.prefix) == ("detectron2", "backbone.")
    assert report.left_over["roi_heads.box_predictor.cls_score.weight"] == "outside 'backbone'"


def test_detectron2_fpn_detector(net, tmp_path):
    state = {key: value for key, value in to_our_names(net.state_dict()).items() if not key.startswith("linear.")}
    state = {**prefixed(state, "backbone.bottom_up."), "backbone.fpn_lateral2.weight": torch.ones(4)}
    report = loaded(net, write_torch(tmp_path / "file.pth", {"model": state, "iteration": 9}))
    assert (report.source, report.prefix) in [
        ("detectron2", "backbone.bottom_up."),
        ("as stored", "backbone.bottom_up."),
    ]
    assert report.left_over["backbone.fpn_lateral2.weight"] == "outside 'backbone.bottom_up'"
