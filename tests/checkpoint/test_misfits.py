"""Checkpoints that don't fit the model: an error that lists what, and a model that is as it was."""

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from detrex_backbones import load_checkpoint
from detrex_backbones.checkpoint.files import Checkpoint
from detrex_backbones.checkpoint.match.plan import plan_checkpoint
from detrex_backbones.checkpoint.match.refusals import check_report
from detrex_backbones.errors import ArgumentError, CheckpointMatchError
from tests.checkpoint.nets import (
    RES,
    Detector,
    assert_same_features,
    empty,
    ours,
    refused,
    save,
    theirs,
    weights,
)


def test_missing_tensors_are_listed(tmp_path):
    state = weights()
    del state["layer3.1.conv2.weight"], state["bn1.bias"]
    error = refused(empty(), save(tmp_path, state))
    assert "2 are not in the file: stem.conv1.norm.bias, res4.1.conv2.weight" in str(error)
    assert "allow_missing=['stem.conv1.norm.bias', 'res4.1.conv2.weight']." in str(error)
    assert error.report.missing == ["stem.conv1.norm.bias", "res4.1.conv2.weight"]
    assert len(error.report.loaded) == 98


def test_another_shape_is_shown_with_both(tmp_path):
    state = weights()
    state["layer1.0.conv2.weight"] = torch.zeros(64, 32, 3, 3)
    error = refused(empty(), save(tmp_path, state))
    sizes = "res2.0.conv2.weight (64, 64, 3, 3) in the model, (64, 32, 3, 3) in the file"
    assert f"1 has another shape: {sizes}" in str(error)
    assert [item.checkpoint_key for item in error.report.mismatched] == ["layer1.0.conv2.weight"]


@pytest.mark.parametrize(("lost", "said"), [("", "is not for this model"), ("layer3.1.conv2.", "is not in the file")])
def test_who_knows_no_network_says_who_does(tmp_path, lost, said):
    state = {key: value for key, value in weights().items() if lost and not key.startswith(lost)} or {
        "a": torch.ones(1)
    }
    assert said in str(refused(empty(), save(tmp_path, state)))
    assert "`detrex-backbones infer FILE` says which network it holds" in str(refused(empty(), save(tmp_path, state)))


def test_another_number_of_input_channels(file):
    net = empty()
    net.stem.conv1.weight = nn.Parameter(torch.ones(64, 4, 7, 7))
    error = refused(net, file)
    assert "stem.conv1.weight (64, 4, 7, 7) in the model, (64, 3, 7, 7) in the file" in str(error)
    report = load_checkpoint(net, file, allow_missing=["stem.conv1.weight"])
    assert [item.model_key for item in report.mismatched] == ["stem.conv1.weight"]


def test_a_parameter_without_a_module_is_suggested_by_its_name(tmp_path):
    model = nn.Module()
    model.scale, model.shift = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    assert "allow it: allow_missing=['shift']." in str(refused(model, save(tmp_path, {"scale": torch.zeros(1)})))


@pytest.mark.parametrize("glob", ["res4.1.*", "*.bias", "backbone.bottom_up.res4.1.*", "res?.1.conv2.weight", "*"])
@pytest.mark.parametrize("scope", [None, "backbone.bottom_up"])
def test_allow_missing_takes_globs_with_and_without_the_scope(tmp_path, glob, scope):
    state = weights()
    gone = [key for key in state if key.startswith("layer3.1.conv2")]
    if glob == "*.bias":
        gone = ["bn1.bias", "layer4.0.bn1.bias"]
    for key in gone:
        del state[key]
    model, path = Detector(empty()), save(tmp_path, state)
    refused(model, path, scope=scope, allow_missing=["res5.*", "*.running_var"])
    report = load_checkpoint(model, path, scope=scope, allow_missing=[glob])
    assert len(report.missing) == len(gone)
    assert report.scope == "backbone.bottom_up"
    if glob != "*.bias":
        assert (model.backbone.bottom_up.res4[1].conv2.weight == 0.25).all()
    assert (model.backbone.bottom_up.res5[1].conv2.weight != 0.25).any()


def test_allow_missing_may_be_any_iterable_but_no_string(tmp_path):
    state = weights()
    del state["bn1.bias"]
    path = save(tmp_path, state)
    # A string is an iterable too: of characters, and one of them is "*".
    error = refused(empty(), path, ArgumentError, allow_missing="res5.*")
    assert "allow_missing='res5.*' is a string. It takes a list: ['res5.*']" in str(error)
    load_checkpoint(empty(), path, allow_missing=(glob for glob in ["stem.*"]))


def test_a_hint_may_cover_what_is_allowed_already(tmp_path):
    model = nn.ModuleDict({"norm": nn.BatchNorm2d(4), "conv": nn.Conv2d(3, 4, 3)})
    state = {"norm.weight": torch.ones(5), "conv.weight": model.conv.weight, "conv.bias": model.conv.bias}
    error = refused(model, save(tmp_path, state), allow_missing=["norm.weight"])
    assert "allow it: allow_missing=['norm.weight', 'norm.*']." in str(error)


def test_allow_missing_does_not_make_a_checkpoint_fit_that_does_not(tmp_path):
    path = save(tmp_path, {"a.weight": torch.ones(3), "b.weight": torch.ones(3)})
    assert "is not for this model: 0 of its 2 tensors fit" in str(refused(empty(), path, allow_missing=["*"]))


def test_nothing_matched(tmp_path):
    path = save(tmp_path, {"encoder.weight": torch.ones(3), "encoder.bias": torch.ones(3)})
    error = refused(empty(), path)
    text = str(error)
    assert "is not for this model: 0 of its 2 tensors fit. Naming convention: as stored." in text
    assert "In the file: encoder.weight, encoder.bias." in text
    assert "In the model: stem.conv1.weight," in text
    assert "Known conventions: " in text
    assert error.report.loaded == []


# What the file is of, and how the model is built.
OTHERS = {
    "R-50 into R-18": ("resnet50", {"depth": 18}),
    "R-18 into R-50": ("resnet18", {"depth": 50}),
    "R-50 into R-101": ("resnet50", {"depth": 101}),
    "R-101 into R-50": ("resnet101", {"depth": 50}),
    "R-101 into R-50 up to res4": ("resnet101", {"depth": 50, "out_features": ["res4"]}),
    "R-34 into R-18": ("resnet34", {"depth": 18}),
    "R-34 into R-50": ("resnet34", {"depth": 50}),
    "wide R-50 into R-50": ("wide_resnet50_2", {"depth": 50}),
    "R-50 into wide R-50": ("resnet50", {"depth": 50, "width_per_group": 128}),
    "ResNeXt-50 into R-50": ("resnext50_32x4d", {"depth": 50}),
}


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
@pytest.mark.parametrize("name", OTHERS)
def test_another_architecture_as_names_and_shapes(name, norm):
    stored, model = OTHERS[name]
    with torch.device("meta"):
        tensors, net = getattr(torchvision.models, stored)().state_dict(), ours(**model, norm=norm)
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    report = plan_checkpoint(shapes, Checkpoint(Path("weights.pth"), "torch", "", tensors)).report
    with pytest.raises(CheckpointMatchError, match=r"not for this model|without a value|another architecture"):
        check_report(report)


@pytest.mark.parametrize("stored, depth", [("resnet50", 18), ("resnet18", 50), ("resnet34", 18), ("resnet18", 34)])
def test_another_architecture(tmp_path, stored, depth):
    refused(empty(depth), save(tmp_path, theirs(stored).state_dict()))


@pytest.mark.parametrize("source", ["torchvision", "as stored"])
def test_a_deeper_network_is_named_as_what_it_is(tmp_path, source):
    """Every parameter of the ResNet-18 would get a value, and none of them the right one."""
    state = theirs("resnet34").state_dict()
    if source == "as stored":
        state = empty(34).state_dict()
    error = refused(empty(18), save(tmp_path, state))
    assert error.report.source == source
    assert error.report.missing == []
    assert "of another architecture: the model has no place for" in str(error)
    # Batch counters say nothing about the architecture.
    assert not any(key.endswith("num_batches_tracked") for key in error.report.unplaced)
    assert len(error.report.unplaced) == 8 * 2 * 5


def test_torchvisions_own_net_does_not_take_a_deeper_one_either(tmp_path):
    path = save(tmp_path, theirs("resnet34").state_dict())
    assert "of another architecture" in str(refused(torchvision.models.resnet18(), path))


def test_what_a_block_has_more_than_ours_is_not_left_out(tmp_path):
    """Squeeze-excitation weights in the file: without them the features are others."""
    state = {**weights(), "layer2.0.se.fc1.weight": torch.ones(8, 128, 1, 1)}
    error = refused(empty(), save(tmp_path, state))
    assert error.report.unplaced == ["layer2.0.se.fc1.weight"]


def test_other_parts_of_a_detector_have_no_place_and_are_reported(tmp_path):
    state = {**weights(), "transformer.norm.weight": torch.ones(3), "class_embed.0.bias": torch.ones(3)}
    report = load_checkpoint(empty(), save(tmp_path, state))
    kept = {key: why for key, why in report.left_over.items() if "embed" in key or "transformer" in key}
    assert kept == {"transformer.norm.weight": "no name of torchvision", "class_embed.0.bias": "no name of torchvision"}
    assert report.unplaced == []


def test_classifier_heads_that_the_model_lacks_are_no_error(file):
    report = load_checkpoint(empty(), file)
    assert {key for key, why in report.left_over.items() if why == "head"} == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("last", ["stem", "res2", "res3", "res4"])
def test_networks_that_are_cut_load_a_whole_file(file, last):
    maps = ["stem", *RES]
    maps = maps[: maps.index(last) + 1]
    net = empty(out_features=maps)
    report = load_checkpoint(net, file)
    assert report.coverage == 1
    reason = "no place in the model" if last == "stem" else "after the last feature map of the model"
    stages = {key.partition(".")[0] for key, why in report.left_over.items() if why == reason}
    assert stages == {f"layer{index}" for index in range(len(maps), 5)}
    assert_same_features(net, maps=maps)


class TestTwoNamings:
    """A detector's file, whose backbone alone is in other names than the model's."""

    @pytest.fixture
    def file(self, tmp_path):
        path = tmp_path / "detector.pth"
        tensors = {f"backbone.body.{name}": value for name, value in weights().items()}
        heads = {"head.weight": torch.ones(4, 3), "neck.weight": torch.ones(5), "pixel_mean": torch.ones(3, 1, 1)}
        torch.save(tensors | heads, path)
        return path

    def model(self, **heads):
        model = nn.Module()
        model.backbone = empty()
        for name, shape in heads.items():
            model.add_module(name, nn.Module())
            model.get_submodule(name).weight = nn.Parameter(torch.zeros(shape))
        model.register_buffer("pixel_mean", torch.zeros(3, 1, 1))
        return model

    def test_takes_the_heads_too(self, file):
        model = self.model(head=(4, 3), neck=(5,))
        report = load_checkpoint(model, file)
        assert (report.scope, report.coverage, report.random) == ("", 1, [])
        assert model.head.weight.all() and model.neck.weight.all() and model.pixel_mean.all()

    def test_takes_the_backbone_alone_where_it_is_asked_for(self, file):
        model = self.model(head=(4, 3), neck=(5,))
        assert load_checkpoint(model, file, scope="backbone").coverage == 1
        assert not model.head.weight.any() and not model.pixel_mean.any()

    def test_would_lose_a_head_and_is_refused(self, file):
        model = self.model(head=(4, 3), top=(5,))
        with pytest.raises(CheckpointMatchError, match=r"the names and shapes of 1 more, .* head\.weight"):
            load_checkpoint(model, file)

    def test_loads_where_the_heads_are_others(self, file):
        assert load_checkpoint(self.model(head=(7, 3), top=(5,)), file).scope == "backbone"
