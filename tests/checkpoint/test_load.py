"""load_checkpoint: all of the file into the right place, or an error and a model that is as it was."""

import logging
import pickle

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from detrex_backbones import LoadReport, load_checkpoint
from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.checkpoint.match.plan import plan_checkpoint
from detrex_backbones.checkpoint.names.conventions import Convention
from detrex_backbones.errors import ArgumentError, CheckpointMatchError
from tests.checkpoint.nets import (
    IMAGES,
    Detector,
    Pair,
    assert_same_features,
    assert_same_tensors,
    empty,
    ours,
    raw,
    refused,
    save,
    snapshot,
    weights,
)
from tests.checkpoint.test_reading import WRITERS
from tests.reference import assert_close, torchvision_maps

LOGGER = "detrex_backbones.checkpoint.load"


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
    assert_same_features(net.cpu())  # DataParallel moves it where there is a GPU


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


@pytest.mark.parametrize("kind", WRITERS)
def test_the_weights_stay_when_the_file_is_cut(tmp_path, kind):
    path = tmp_path / "weights.pth"
    WRITERS[kind](weights(), path)
    net = empty()
    load_checkpoint(net, path)
    with path.open("r+b") as opened:  # reading what is mapped of it would end the process
        opened.truncate(10)
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


@pytest.mark.gpu
def test_into_a_model_on_the_gpu(file):
    net = empty().cuda()
    pointers = [value.data_ptr() for value in net.parameters()]
    report = load_checkpoint(net, file)
    assert report.coverage == 1
    assert {value.device.type for value in net.state_dict().values()} == {"cuda"}
    assert [value.data_ptr() for value in net.parameters()] == pointers
    assert_same_features(net.cpu())


@pytest.mark.gpu
def test_a_file_that_was_saved_on_a_gpu_is_read_on_the_cpu(tmp_path):
    path = save(tmp_path, {key: value.cuda() for key, value in weights().items()})
    assert {value.device.type for value in read_checkpoint(path).tensors.values()} == {"cpu"}
    net = empty()
    load_checkpoint(net, path)
    assert_same_features(net)


class Halving(nn.Module):
    """Hands out something else than what was written to it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self._register_state_dict_hook(self.halve)

    @staticmethod
    def halve(module, state, prefix, metadata):
        state[prefix + "weight"] = state[prefix + "weight"] / 2


def test_what_the_model_has_afterwards_is_compared_with_the_file(tmp_path):
    path = save(tmp_path, {"weight": torch.tensor([1.0, 2.0, 3.0])})
    with pytest.raises(CheckpointMatchError, match="has other values than the file in 1 tensor: weight"):
        load_checkpoint(Halving(), path)


class Flat(nn.Module):
    """Two parameters in one piece of memory, as recurrent layers and flattening trainers have them."""

    def __init__(self, start):
        super().__init__()
        memory = torch.zeros(6)
        self.first, self.second = nn.Parameter(memory[:3]), nn.Parameter(memory[start : start + 3])


def test_parameters_that_share_memory_are_compared_with_the_file(tmp_path):
    state = {"first": torch.tensor([1.0, 2.0, 3.0]), "second": torch.tensor([4.0, 5.0, 6.0])}
    path = save(tmp_path, state)
    beside = Flat(3)
    load_checkpoint(beside, path)
    assert_same_tensors(beside.state_dict(), state)
    with pytest.raises(CheckpointMatchError, match="has other values than the file in 1 tensor: first"):
        load_checkpoint(Flat(2), path)


class Deaf(torch.Tensor):
    """Does not take what is copied into it."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.Tensor.copy_:
            return args[0]
        return super().__torch_function__(function, types, args, kwargs or {})


def test_tensor_classes_are_compared_with_the_file(tmp_path):
    model = nn.Module()
    model.register_buffer("weight", torch.ones(3).as_subclass(Deaf))
    with pytest.raises(CheckpointMatchError, match="has other values than the file in 1 tensor: weight"):
        load_checkpoint(model, save(tmp_path, {"weight": torch.zeros(3)}))


def test_names_of_the_model_itself_are_not_translated(tmp_path, monkeypatch):
    model = Detector(empty())
    path = save(tmp_path, model.state_dict())
    monkeypatch.setattr(Convention, "read", lambda *args: pytest.fail("translated"))
    report = load_checkpoint(model, path)
    assert (report.source, report.coverage) == ("as stored", 1)


def test_what_a_model_certainly_has_is_not_read_again(file, monkeypatch):
    monkeypatch.setattr(torch, "equal", lambda *args: pytest.fail("compared"))
    net = empty()
    load_checkpoint(net, file)
    assert_same_features(net)


def test_each_tensor_says_by_which_rule(file):
    model = Detector(empty())
    report = load_checkpoint(model, file)
    assert {item.rule for item in report.loaded} == {"torchvision: in the scope"}
    torch.save(model.state_dict(), file.with_name("whole.pth"))
    report = load_checkpoint(model, file.with_name("whole.pth"))
    assert {item.rule for item in report.loaded} == {"as stored: the same name"}


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.float64])
def test_what_is_not_finite_is_counted_in_every_dtype(tmp_path, dtype):
    model = torch.nn.Module()
    model.register_buffer("scale", torch.zeros(3, dtype=dtype))
    path = tmp_path / "weights.pth"
    torch.save({"scale": torch.tensor([1.0, float("nan"), 2.0]).to(dtype)}, path)
    assert load_checkpoint(model, path).not_finite == {"scale": 1}
