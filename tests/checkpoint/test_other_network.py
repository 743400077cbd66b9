"""Refusals name the network that a file holds, and the override that takes it, which is tried here as it stands."""

import re
import shlex

import pytest
import timm
import torch

from detrex_backbones import ConvNeXt
from detrex_backbones.checkpoint.fetch.catalog.timm_shapes import networks_of_shapes
from detrex_backbones.cli import main

RESNET, TIMM = ["resnet/resnet50.py"], ["timm/resnet152d.py", "model.backbone.model_name=convnext_atto"]


def shapes_of(name):
    net = timm.create_model(name)
    return {key: tuple(value.shape) for key, value in net.state_dict().items() if value.is_floating_point()}


def save(state, name="other.pth"):
    torch.save({key: torch.zeros(shape, dtype=torch.float16) for key, shape in state.items()}, name)
    return name


def refusal(capsys, *arguments):
    """What `match` says where it refuses."""
    config, file, *overrides = arguments
    assert main(["match", config, file, *overrides]) == 1
    return " ".join(capsys.readouterr().err.split())


def check_mend(error, config, file, *before):
    """The override that the error gives takes the file when it is pasted."""
    assert "infer FILE" not in error  # which network it is stands here
    overrides = shlex.split(re.search(r"Load it with (.*)\.$", error)[1])
    assert main(["match", config, file, *before, *overrides]) == 0


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("resnet101", "Load it with model.backbone.stages.depth=101."),
        ("resnext50_32x4d", "model.backbone.stages.num_groups=32 model.backbone.stages.width_per_group=4."),
    ],
)
def test_a_resnet_of_this_library(capsys, name, mend):
    file = save(shapes_of(name))
    error = refusal(capsys, *RESNET, file)
    assert "The file holds a ResNet in torchvision names with a BasicStem" in error and mend in error
    check_mend(error, *RESNET, file)


@pytest.mark.few(1)
@pytest.mark.parametrize("config", [RESNET, TIMM], ids=["into a ResNet", "into another of timm's"])
@pytest.mark.parametrize("name", ["convnext_femto", "regnetx_004", "pvt_v2_b1", "resnet14t"])
def test_a_network_of_timm(capsys, name, config):
    config, *before = config
    file = save(shapes_of(name))
    error = refusal(capsys, config, file, *before)
    override = f"model.backbone.model_name={name}" if before else f"backbone=timm/{name}"
    assert error.endswith(f"The file holds timm's {name}. Load it with {override}.")
    check_mend(error, config, file, *before)


@pytest.mark.parametrize("prefix", ["", "module.backbone.bottom_up."])
def test_a_file_of_the_authors_and_of_a_detector(capsys, prefix):
    with torch.device("meta"):
        state = ConvNeXt().state_dict()
    beside = {"neck.convs.0.conv.weight": (16, 8, 1, 1), "head.fc.weight": (4, 8)} if prefix else {}
    file = save({prefix + key: value.shape for key, value in state.items() if not key.startswith("norm")} | beside)
    error = refusal(capsys, TIMM[0], file, *TIMM[1:])
    assert "The file holds timm's convnext_tiny" in error
    check_mend(error, TIMM[0], file, *TIMM[1:])


def test_what_no_network_has_is_not_named(capsys):
    shapes = shapes_of("convnext_femto")
    wider = {key: tuple(n + 8 if n == 96 else n for n in shape) for key, shape in shapes.items()}
    assert networks_of_shapes(shapes) and not networks_of_shapes(wider)
    assert "The file holds" not in refusal(capsys, TIMM[0], save(wider), *TIMM[1:])


@pytest.mark.parametrize("name", ["convnext_atto", "swin_tiny_patch4_window7_224", "resnet18", "mobilenetv3_small_050"])
def test_a_network_is_known_by_its_shapes(name):
    shapes = shapes_of(name)
    renamed = {f"a.{number}.b": shape for number, shape in enumerate(shapes.values())}
    assert name in networks_of_shapes(shapes)
    assert name in networks_of_shapes({f"model.backbone.{key}": shape for key, shape in shapes.items()})
    assert bool(networks_of_shapes(renamed)) == ("swin" not in name)  # whose tables of positions have names
    assert not networks_of_shapes({key: shape for key, shape in shapes.items() if ".0." not in key})
