"""ResNets of self-supervised training: the encoder is found, everything else is set aside with its reason."""

import argparse

import pytest
import torch

from detrex_backbones.errors import CheckpointMatchError
from tests.checkpoint.conventions.files import assert_same, load, prefixed, write_python2_pickle, write_torch
from tests.checkpoint.conventions.nets import maps_of, our_resnet, rename
from tests.reference import TORCHVISION_RULES, torchvision_net


@pytest.fixture(scope="module")
def net():
    return torchvision_net("resnet18")


@pytest.fixture(scope="module")
def encoder(net):
    return {key: value for key, value in net.state_dict().items() if not key.startswith("fc.")}


def other(encoder):
    """Another encoder with the same names."""
    return {key: value + 1 for key, value in encoder.items()}


def head(name, *layers):
    return {f"{name}.{layer}.weight": torch.ones(4, 4) for layer in layers}


def moco(version, encoder):
    layers = ["fc.weight"] if version == 1 else ["fc.0.weight", "fc.2.weight"]
    own, momentum = (
        prefixed({**values, **{layer: torch.ones(128, 512) for layer in layers}}, f"module.encoder_{letter}.")
        for letter, values in (("q", encoder), ("k", other(encoder)))
    )
    state = {**own, **momentum, "module.queue": torch.ones(128, 16), "module.queue_ptr": torch.zeros(1)}
    return {"epoch": 200, "arch": "resnet18", "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}


@pytest.mark.parametrize("version", [1, 2])
def test_moco(version, net, encoder, tmp_path):
    model = our_resnet()
    report = load(model, write_torch(tmp_path / "file.pth.tar", moco(version, encoder), legacy=True))
    assert (report.source, report.prefix, report.container) == ("torchvision", "encoder_q.", "state_dict")
    assert report.left_over["module.encoder_k.conv1.weight"] == "momentum encoder"
    assert report.left_over["module.queue_ptr"] == "queue of negatives"
    layer = "module.encoder_q.fc.weight" if version == 1 else "module.encoder_q.fc.2.weight"
    assert "head" in report.left_over[layer]
    assert_same(maps_of(model), maps_of(net))


def test_moco_v3(net, encoder, tmp_path):
    state = {
        **prefixed({**encoder, **head("fc", 0, 3)}, "module.base_encoder."),
        **prefixed({**other(encoder), **head("fc", 0, 3)}, "module.momentum_encoder."),
        **head("module.predictor", 0, 3),
    }
    file = {"epoch": 100, "state_dict": state, "optimizer": {}, "scaler": {"scale": 65536.0}}
    model = our_resnet()
    report = load(model, write_torch(tmp_path / "file.pth.tar", file))
    assert report.prefix == "base_encoder."
    assert report.left_over["module.momentum_encoder.conv1.weight"] == "momentum encoder"
    assert_same(maps_of(model), maps_of(net))


@pytest.mark.parametrize("container", ["", "state_dict"])
def test_swav(container, net, encoder, tmp_path):
    state = prefixed({**encoder, **head("projection_head", 0, 3), "prototypes.weight": torch.ones(8, 4)}, "module.")
    file = {container: state, "epoch": 800, "optimizer": {}} if container else state
    model = our_resnet()
    report = load(model, write_torch(tmp_path / "file.pth.tar", file), source="swav")
    assert report.left_over["module.prototypes.weight"] == "head of self-supervised training"
    assert_same(maps_of(model), maps_of(net))


def test_dino_backbone_alone(net, encoder, tmp_path):
    model = our_resnet()
    report = load(model, write_torch(tmp_path / "file.pth", encoder), source="dino")
    assert set(report.left_over.values()) == {"batch counter"}
    assert_same(maps_of(model), maps_of(net))


def test_dino_takes_the_teacher(net, encoder, tmp_path):
    teacher, student = (
        {**prefixed(values, "module.backbone."), **head("module.head.mlp", 0, 2)}
        for values in (encoder, other(encoder))
    )
    args = argparse.Namespace(arch="resnet50")
    file = {"student": student, "teacher": teacher, "optimizer": {}, "epoch": 1, "args": args, "dino_loss": {}}
    model = our_resnet()
    report = load(model, write_torch(tmp_path / "file.pth", file))
    assert (report.container, report.prefix) == ("teacher", "backbone.")
    assert report.left_over["module.head.mlp.0.weight"] == "outside 'backbone'"
    assert_same(maps_of(model), maps_of(net))


def test_densecl_holds_its_encoder_twice(net, encoder, tmp_path):
    state = {
        **prefixed(encoder, "backbone."),
        **prefixed(encoder, "encoder_q.0."),
        **head("encoder_q.1.mlp", 0, 2),
        **prefixed(other(encoder), "encoder_k.0."),
        **head("encoder_k.1.mlp", 0, 2),
        "queue": torch.ones(4, 16),
        "queue2": torch.ones(4, 16),
        "queue2_ptr": torch.zeros(1),
    }
    model = our_resnet()
    report = load(model, write_torch(tmp_path / "file.pth", {"state_dict": state, "author": "DenseCL"}))
    assert report.prefix == "backbone." and not report.ambiguous
    assert report.left_over["queue2"] == "queue of negatives"
    assert_same(maps_of(model), maps_of(net))


def test_two_different_encoders_are_never_guessed(encoder, tmp_path):
    state = {**prefixed(encoder, "backbone."), **prefixed(other(encoder), "encoder_q.0.")}
    path = write_torch(tmp_path / "file.pth", state)
    with pytest.raises(CheckpointMatchError, match=r"holds 2 networks.*prefix="):
        load(our_resnet(), path)
    assert load(our_resnet(), path, prefix="encoder_q.0").prefix == "encoder_q.0."


@pytest.mark.parametrize("prefix", ["", "module.backbone."])
def test_barlow_twins(prefix, net, encoder, tmp_path):
    state = prefixed(encoder, prefix)
    if prefix:
        state |= {**head("module.projector", 0, 3), "module.bn.running_mean": torch.zeros(4)}
    file = {"epoch": 1, "model": state, "optimizer": {}} if prefix else state
    model = our_resnet()
    report = load(model, write_torch(tmp_path / "file.pth", file))
    assert report.source == "torchvision"
    assert_same(maps_of(model), maps_of(net))


def test_moco_converted_for_detectron2(net, tmp_path):
    """Its tool writes numpy arrays in detectron2's names, and the head where torchvision's would be."""
    state = rename(net.state_dict(), [rule for rule in TORCHVISION_RULES if rule[1] != "linear."])
    state["stem.fc.0.weight"] = state.pop("fc.weight")
    state["stem.fc.0.bias"] = state.pop("fc.bias")
    file = {"model": state, "__author__": "MOCO", "matching_heuristics": True}
    model = our_resnet()
    report = load(model, write_python2_pickle(tmp_path / "file.pkl", file))
    assert report.left_over["stem.fc.0.weight"] == "head"
    assert_same(maps_of(model), maps_of(net))
