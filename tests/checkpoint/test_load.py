"""load_checkpoint: all of the file into the right place, or an error and a model that is as it was."""

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from detrex_backbones import LoadReport, load_checkpoint
from detrex_backbones.checkpoint.check import check_report
from detrex_backbones.checkpoint.files import Checkpoint, read_checkpoint
from detrex_backbones.checkpoint.plan import plan_checkpoint
from detrex_backbones.errors import ArgumentError, CheckpointError, CheckpointMatchError
from tests.checkpoint.nets import (
    IMAGES,
    RES,
    assert_same_features,
    empty,
    ours,
    raw,
    snapshot,
    theirs,
    weights,
)
from tests.checkpoint.test_reading import WRITERS
from tests.reference import assert_close, torchvision_maps

LOGGER = "detrex_backbones.checkpoint.load"


class Detector(nn.Module):
    """A backbone deep in a model that has weights of its own."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.bottom_up = backbone
        self.head = nn.Conv2d(8, 4, 1)


class Pair(nn.Module):
    """The same network twice."""

    def __init__(self):
        super().__init__()
        self.student, self.teacher = empty(), empty()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """torchvision's ResNet-18."""
    return save(tmp_path_factory.mktemp("torchvision"), weights())


def refused(model, path, error=CheckpointMatchError, **kwargs):
    """The error of a load; the model is bytewise as it was."""
    before = snapshot(model)
    with pytest.raises(error) as caught:
        load_checkpoint(model, path, **kwargs)
    assert snapshot(model) == before
    assert isinstance(caught.value, ValueError)
    if error is CheckpointMatchError:
        assert isinstance(caught.value, CheckpointError)
        assert str(path) in str(caught.value)
    return caught.value


def save(tmp_path, state, name="changed.pth"):
    path = tmp_path / name
    torch.save(state, path)
    return path


def test_it_returns_the_report_and_logs_it(file, caplog):
    with caplog.at_level(logging.INFO, LOGGER):
        report = load_checkpoint(empty(), str(file))
    assert isinstance(report, LoadReport)
    assert (report.path, report.format, report.container) == (str(file), "torch", "")
    assert len(report.loaded) == report.expected == 100
    assert [record.getMessage() for record in caplog.records] == [f"loaded a checkpoint\n{report}"]
    first = report.loaded[0]
    assert (first.model_key, first.checkpoint_key, first.shape, first.cast) == (
        "stem.conv1.weight",
        "conv1.weight",
        (64, 3, 7, 7),
        "",
    )


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_features(tmp_path, kind):
    path = tmp_path / "weights.pth"
    WRITERS[kind](weights(), path)
    net = empty()
    assert load_checkpoint(net, path).format == kind
    assert_same_features(net)


def test_names_and_shapes_of_a_model_are_enough_for_a_plan(file):
    with torch.device("meta"):
        net = ours()
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert plan_checkpoint(shapes, read_checkpoint(file)).report.coverage == 1


# What doesn't fit.


def test_missing_tensors_are_listed(tmp_path):
    state = weights()
    del state["layer3.1.conv2.weight"], state["bn1.bias"]
    error = refused(empty(), save(tmp_path, state))
    assert "2 are not in the file: stem.conv1.norm.bias, res4.1.conv2.weight" in str(error)
    assert "allow_missing=['stem.conv1.norm.*']" in str(error)
    assert error.report.missing == ["stem.conv1.norm.bias", "res4.1.conv2.weight"]
    assert len(error.report.loaded) == 98


def test_another_shape_is_shown_with_both(tmp_path):
    state = weights()
    state["layer1.0.conv2.weight"] = torch.zeros(64, 32, 3, 3)
    error = refused(empty(), save(tmp_path, state))
    sizes = "res2.0.conv2.weight (64, 64, 3, 3) in the model, (64, 32, 3, 3) in the file"
    assert f"1 have another shape: {sizes}" in str(error)
    assert [item.checkpoint_key for item in error.report.mismatched] == ["layer1.0.conv2.weight"]


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
    assert "allow_missing=['shift']" in str(refused(model, save(tmp_path, {"scale": torch.zeros(1)})))


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


def test_allow_missing_does_not_make_a_checkpoint_fit_that_does_not(tmp_path):
    path = save(tmp_path, {"a.weight": torch.ones(3), "b.weight": torch.ones(3)})
    assert "is not for this model: 0 of its 2 tensors fit" in str(refused(empty(), path, allow_missing=["*"]))


def test_nothing_matched(tmp_path):
    path = save(tmp_path, {"encoder.weight": torch.ones(3), "encoder.bias": torch.ones(3)})
    error = refused(empty(), path)
    text = str(error)
    assert "is not for this model: 0 of its 2 tensors fit. Names taken: as stored." in text
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
    assert "of another architecture: the model's stages have no place for" in str(error)
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
    state = {**weights(), "transformer.weight": torch.ones(3), "class_embed.0.bias": torch.ones(3)}
    report = load_checkpoint(empty(), save(tmp_path, state))
    kept = {key: why for key, why in report.left_over.items() if "embed" in key or "transformer" in key}
    assert kept == {"transformer.weight": "no name of torchvision", "class_embed.0.bias": "no name of torchvision"}
    assert report.unplaced == []


def test_classifier_heads_that_the_model_lacks_are_no_error(file):
    report = load_checkpoint(empty(), file)
    assert {key for key, why in report.left_over.items() if why == "classifier head"} == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("last", ["stem", "res2", "res3", "res4"])
def test_networks_that_are_cut_load_a_whole_file(file, last):
    maps = ["stem", *RES]
    maps = maps[: maps.index(last) + 1]
    net = empty(out_features=maps)
    report = load_checkpoint(net, file)
    assert report.coverage == 1
    stages = {key.partition(".")[0] for key, why in report.left_over.items() if why == "no place in the model"}
    assert stages == {f"layer{index}" for index in range(len(maps), 5)}
    assert_same_features(net, maps=maps)


# Where it goes.


def test_into_a_detector(file):
    model = Detector(empty())
    head = raw(model.head.weight)
    report = load_checkpoint(model, file)
    assert report.scope == "backbone.bottom_up"
    assert report.outside == ["head.weight", "head.bias"]
    assert raw(model.head.weight) == head
    assert_same_features(model.backbone.bottom_up)


def test_into_a_wrapped_model(file):
    net = empty()
    assert load_checkpoint(nn.DataParallel(net), file).scope == "module"
    assert_same_features(net)


def test_two_equal_places_are_refused_until_the_scope_is_said(file):
    model = Pair()
    error = refused(model, file)
    assert "is ambiguous for this model: it fits equally well into 2 places" in str(error)
    assert error.report.ambiguous
    report = load_checkpoint(model, file, scope="teacher")
    assert report.scope == "teacher"
    assert len(report.outside) == 100
    assert_same_features(model.teacher)
    assert all((value == 0.25).all() for value in model.student.state_dict().values())


def test_a_scope_that_is_not_there(file):
    error = refused(Pair(), file, ArgumentError, scope="techer")
    assert "scope='techer' is no submodule of the model that holds parameters. Did you mean 'teacher'" in str(error)
    assert "At the top are: student, teacher." in str(error)


def test_a_model_without_memory_is_refused(file):
    with torch.device("meta"):
        net = nn.ModuleDict({"stem": nn.Linear(2, 2)})
    with pytest.raises(ArgumentError, match=r"stem\.weight, stem\.bias are on the meta device.*to_empty"):
        load_checkpoint(net, file)


# What stays and what changes.


def test_dtype_casts_are_reported_and_right(tmp_path):
    half = {key: value.half() if value.is_floating_point() else value for key, value in weights().items()}
    net = empty()
    report = load_checkpoint(net, save(tmp_path, half))
    assert {item.cast for item in report.loaded} == {"float16 -> float32"}
    assert "100 float16 -> float32" in str(report)
    assert raw(net.res2[0].conv1.weight) == raw(half["layer1.0.conv1.weight"].float())
    assert {value.dtype for value in net.state_dict().values()} == {torch.float32}


def test_a_file_in_float16_gives_torchvisions_features(tmp_path):
    """As torchvision's wide ResNets V1 are stored."""
    half = {key: value.half() if value.is_floating_point() else value for key, value in weights().items()}
    reference = torchvision.models.resnet18().eval()
    reference.load_state_dict(half)
    net = empty()
    load_checkpoint(net, save(tmp_path, half))
    expected = torchvision_maps(reference, IMAGES)
    with torch.no_grad():
        for name, value in net(IMAGES).items():
            assert_close(value, expected[name])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_models_of_other_precision_keep_it(file, dtype):
    net = empty(norm="BN").to(dtype)
    report = load_checkpoint(net, file)
    name = str(dtype).removeprefix("torch.")
    casts = {item.model_key.endswith("tracked"): item.cast for item in report.loaded}
    assert casts == {False: f"float32 -> {name}", True: ""}
    assert raw(net.res3[1].conv2.weight) == raw(weights()["layer2.1.conv2.weight"].to(dtype))
    assert net.res3[1].conv2.norm.running_var.dtype == dtype
    assert net.res3[1].conv2.norm.num_batches_tracked.dtype == torch.int64


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_said(tmp_path, caplog, value):
    state = {key: tensor.clone() for key, tensor in weights().items()}
    state["layer2.0.conv1.weight"].view(-1)[[3, 5]] = value
    state["bn1.running_mean"][0] = value
    state["bn1.running_mean"][1] = -value
    path = save(tmp_path, state)
    with caplog.at_level(logging.WARNING, LOGGER):
        report = load_checkpoint(empty(), path)
    assert report.not_finite == {"res3.0.conv1.weight": 2, "stem.conv1.norm.running_mean": 2}
    assert "res3.0.conv1.weight (2 numbers)" in str(report).replace("\n            ", " ")
    (record,) = caplog.records
    assert str(path) in record.getMessage() and "NaN or infinite values in" in record.getMessage()
    assert "res3.0.conv1.weight" in record.getMessage()


def test_large_numbers_are_finite(tmp_path):
    state = {key: tensor.clone() for key, tensor in weights().items()}
    state["bn1.running_var"][:] = 3e38  # their sum is not
    path = save(tmp_path, state)
    assert load_checkpoint(empty(), path).not_finite == {}
    # In half precision they become infinite, each of them.
    assert load_checkpoint(empty().half(), path).not_finite == {"stem.conv1.norm.running_var": 64}


def test_parameters_stay_the_same_objects(file):
    net = empty(norm="BN")
    net.freeze(2)
    optimizer = torch.optim.SGD([value for value in net.parameters() if value.requires_grad], lr=0.1)
    before = {key: (id(value), value.data_ptr(), value.requires_grad) for key, value in net.named_parameters()}
    buffers = {key: id(value) for key, value in net.named_buffers()}
    load_checkpoint(net, file)
    after = {key: (id(value), value.data_ptr(), value.requires_grad) for key, value in net.named_parameters()}
    assert after == before
    assert {key: id(value) for key, value in net.named_buffers()} == buffers
    assert {flag for _, _, flag in after.values()} == {True, False}
    for value in net.parameters():
        value.grad = torch.ones_like(value) if value.requires_grad else None
    optimizer.step()
    stepped = weights()["layer4.1.conv2.weight"] - 0.1
    assert torch.equal(net.res5[1].conv2.weight, stepped)
    assert torch.equal(net.res2[1].conv2.weight, weights()["layer1.1.conv2.weight"])


@pytest.mark.parametrize("kind", WRITERS)
def test_the_weights_stay_when_the_file_is_overwritten(tmp_path, kind):
    path = tmp_path / "weights.pth"
    WRITERS[kind](weights(), path)
    net = empty()
    load_checkpoint(net, path)
    with path.open("r+b") as opened:  # in place: whoever has mapped it sees zeros
        opened.write(bytes(path.stat().st_size))
    assert_same_features(net)


def test_training_goes_on_without_touching_the_file(file):
    before = file.read_bytes()
    net = empty(norm="BN")
    load_checkpoint(net, file)
    with torch.no_grad():
        for value in net.parameters():
            value.zero_()
    assert file.read_bytes() == before


def test_loading_twice_is_loading_once(file):
    net = empty()
    load_checkpoint(net, file)
    once = snapshot(net)
    load_checkpoint(net, file)
    assert snapshot(net) == once


def test_arrays_of_another_byte_order(tmp_path):
    path = tmp_path / "weights.pkl"
    swapped = {key: value.numpy() for key, value in weights().items()}
    swapped = {key: np.asarray(value, dtype=value.dtype.newbyteorder(">")) for key, value in swapped.items()}
    path.write_bytes(pickle.dumps(swapped))
    net = empty()
    load_checkpoint(net, path)
    assert_same_features(net)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_into_a_model_on_the_gpu(file):
    net = empty().cuda()
    pointers = [value.data_ptr() for value in net.parameters()]
    report = load_checkpoint(net, file)
    assert report.coverage == 1
    assert {value.device.type for value in net.state_dict().values()} == {"cuda"}
    assert [value.data_ptr() for value in net.parameters()] == pointers
    assert_same_features(net.cpu())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_file_that_was_saved_on_a_gpu_is_read_on_the_cpu(tmp_path):
    path = save(tmp_path, {key: value.cuda() for key, value in weights().items()})
    assert {value.device.type for value in read_checkpoint(path).tensors.values()} == {"cpu"}
    net = empty()
    load_checkpoint(net, path)
    assert_same_features(net)
