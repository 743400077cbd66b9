"""Converting: the same bytes under other names, there and back, or nothing at all."""

import pickle

import numpy as np
import pytest
import timm
import torch

from detrex_backbones import load_checkpoint
from detrex_backbones.checkpoint.convert import convert_checkpoint
from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.errors import ArgumentError, CheckpointError, CheckpointFileError
from tests.checkpoint.nets import assert_same_features, empty, weights

EXTENSIONS = [".pth", ".pt", ".bin", ".pkl", ".safetensors", ".pyth", ".ckpt", ".pth.tar"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("convert") / "resnet18.pth"
    torch.save(weights(), path)
    return path


def assert_same_bytes(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert (value.dtype, value.shape) == (other[key].dtype, other[key].shape), key
        assert value.contiguous().view(-1).view(torch.uint8).equal(other[key].contiguous().view(-1).view(torch.uint8))


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_there_and_back_in_every_container(tmp_path, file, extension):
    there, back = tmp_path / f"there{extension}", tmp_path / "back.pth"
    done = convert_checkpoint(file, there, to="detectron2")
    assert (done.source, done.target, len(done.names), done.left_out) == ("torchvision", "detectron2", 122, {})
    assert "res2.0.conv1.norm.running_mean" in read_checkpoint(there).tensors
    assert convert_checkpoint(there, back, to="torchvision").source == "detectron2"
    assert_same_bytes(read_checkpoint(back).tensors, weights())
    net = empty()
    load_checkpoint(net, there)
    assert_same_features(net)


def test_a_pkl_is_what_detectron2s_tools_write(tmp_path, file):
    convert_checkpoint(file, tmp_path / "r18.pkl", to="detectron2")
    content = pickle.loads((tmp_path / "r18.pkl").read_bytes())
    assert content["matching_heuristics"] is True and content["__author__"] == "torchvision"
    assert all(isinstance(value, np.ndarray) for value in content["model"].values())


@pytest.mark.parametrize("name", ["resnet18d", "resnet26t", "resnext50_32x4d", "seresnext26d_32x4d"])
def test_timms_names_there_and_back(tmp_path, name):
    state = timm.create_model(name).state_dict()
    torch.save(state, tmp_path / "timm.pth")
    done = convert_checkpoint(tmp_path / "timm.pth", tmp_path / "ours.safetensors", to="detectron2")
    assert len(done.names) == len(state)
    convert_checkpoint(tmp_path / "ours.safetensors", tmp_path / "back.pth", to=done.source)
    assert_same_bytes(read_checkpoint(tmp_path / "back.pth").tensors, state)
    # An alias stands for whichever of its conventions can say it all.
    assert convert_checkpoint(tmp_path / "timm.pth", tmp_path / "again.pth", to="timm").target == done.source


def test_a_prefix_is_put_before_every_name_and_taken_off_again(tmp_path, file):
    convert_checkpoint(file, tmp_path / "there.pth", to="detectron2", prefix="backbone.bottom_up")
    assert all(key.startswith("backbone.bottom_up.") for key in read_checkpoint(tmp_path / "there.pth").tensors)
    convert_checkpoint(tmp_path / "there.pth", tmp_path / "back.pth", to="torchvision")
    assert_same_bytes(read_checkpoint(tmp_path / "back.pth").tensors, weights())


def test_half_precision_and_shared_tensors_keep_their_bytes(tmp_path):
    state = {key: value.half() if value.is_floating_point() else value for key, value in weights().items()}
    state["layer1.1.bn1.weight"] = state["layer1.0.bn1.weight"]
    torch.save(state, tmp_path / "half.pth")
    convert_checkpoint(tmp_path / "half.pth", tmp_path / "there.safetensors", to="detectron2")
    convert_checkpoint(tmp_path / "there.safetensors", tmp_path / "back.pth", to="torchvision")
    assert_same_bytes(read_checkpoint(tmp_path / "back.pth").tensors, state)


@pytest.mark.parametrize(
    ("change", "options", "error", "said"),
    [
        (
            {},
            {"to": "torchvison"},
            ArgumentError,
            r"to='torchvison' is not known\. Allowed: .*Did you mean 'torchvision'",
        ),
        ({}, {"to": "detr"}, CheckpointError, r"can't be expressed in these names \(detr: .* Nothing was written"),
        ({}, {"to": "gluon-v1c"}, CheckpointError, r"can't be expressed in these names .*gluon-v1c"),
        (
            {"extra.weight": torch.ones(1)},
            {"to": "torchvision", "source": "huggingface"},
            CheckpointError,
            "none of the",
        ),
        ({}, {"to": "detectron2", "output": "r18.onnx"}, ArgumentError, r"extension '.onnx'\. Allowed: .pth, .pt"),
        ({}, {"to": "detectron2", "output": "no/r18.pth"}, CheckpointFileError, "the folder .* does not exist"),
        (
            {"bn1.bias": torch.ones(64).bfloat16()},
            {"to": "detectron2", "output": "r18.pkl"},
            CheckpointError,
            "bfloat16",
        ),
    ],
)
def test_what_cannot_be_expressed_is_refused_and_nothing_written(tmp_path, change, options, error, said):
    state = {**weights(), **change}
    torch.save(state, tmp_path / "in.pth")
    output = tmp_path / options.pop("output", "out.pth")
    with pytest.raises(error, match=said):
        convert_checkpoint(tmp_path / "in.pth", output, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]


def test_a_file_of_no_known_names_is_refused(tmp_path):
    torch.save({"a.weight": torch.ones(2)}, tmp_path / "in.pth")
    with pytest.raises(CheckpointError, match="bears the marks of no known convention"):
        convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.pth", to="detectron2")


def test_two_networks_are_not_chosen_between(tmp_path):
    state = {f"{side}.{key}": value for side in ("left", "right") for key, value in weights().items()}
    torch.save(state, tmp_path / "in.pth")
    with pytest.raises(
        CheckpointError, match=r"can be read in 2 ways: torchvision at 'left\.', torchvision at 'right\.'"
    ):
        convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.pth", to="detectron2")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("key", ["fc.weight", "conv1.weight", "layer4.1.bn2.running_var"])
def test_tensors_without_plain_values_are_not_left_out(tmp_path, key):
    torch.save({**weights(), key: weights()[key].to_sparse()}, tmp_path / "resnet18.pth")
    with pytest.raises(CheckpointError, match=rf"1 tensor without plain values: a sparse tensor.*{key}.*Nothing was"):
        convert_checkpoint(tmp_path / "resnet18.pth", tmp_path / "there.pth", to="detectron2")
    assert not (tmp_path / "there.pth").exists()
