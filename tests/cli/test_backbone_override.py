"""`backbone=NAME` on every subcommand that takes overrides."""

import json

import pytest
import torch
import torchvision

from detrex_backbones.cli import main
from tests.cli.test_evaluate import data, files  # noqa: F401
from tests.reference import randomise_norms


def run(capsys, *argv):
    status = main([str(argument) for argument in argv])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet18-f37072fd.pth"
    torch.manual_seed(0)
    torch.save(randomise_norms(torchvision.models.resnet18()).state_dict(), path)
    return path


def test_show(capsys):
    status, out, err = run(capsys, "show", "resnet/resnet50", "backbone=resnet18", "--json")
    assert status == 0
    assert [row["channels"] for row in json.loads(out)["maps"]] == [64, 128, 256, 512]
    assert "train.init_checkpoint: '' -> 'torchvision://resnet18-v1'" in err.splitlines()


def test_show_with_a_plain_vit(capsys):
    status, out, err = run(capsys, "show", "resnet/resnet50", "backbone=timm/test_vit", "--json")
    assert status == 0, err
    assert [(row["name"], row["stride"]) for row in json.loads(out)["maps"]] == [
        ("p2", 4),
        ("p3", 8),
        ("p4", 16),
        ("p5", 32),
    ]


@pytest.mark.slow
def test_features_and_match(capsys, tmp_path, weights):
    load = [f"train.init_checkpoint={weights}", "train.device=cpu", "backbone=resnet18"]
    status, out, err = run(capsys, "features", "resnet/resnet50", *load, "--output", tmp_path, "--json")
    assert status == 0, err
    assert [row["channels"] for row in json.loads(out)["maps"]] == [64, 128, 256, 512]
    status, out, err = run(capsys, "match", "resnet/resnet50", weights, "backbone=resnet18")
    assert status == 0, err
    assert "loaded      100 of 100 of model.backbone" in out
    assert err.startswith("model.backbone: ResNet(depth=50")
    assert run(capsys, "match", "resnet/resnet50", weights)[0] == 1  # or the override would prove nothing


def test_evaluate(capsys, data, weights):  # noqa: F811
    options = ("--data", data, "--limit", "2", "--workers", "0", "--json", "train.device=cpu")
    load = f"train.init_checkpoint={weights}"
    status, out, err = run(capsys, "evaluate", "resnet/resnet50", *options, load, "backbone=resnet18")
    assert status == 0, err
    swapped = json.loads(out)
    status, out, _ = run(capsys, "evaluate", "resnet/resnet18", *options, load)
    assert status == 0
    assert swapped == json.loads(out)


@pytest.mark.few(4)
@pytest.mark.parametrize("command", ["show", "features", "match", "evaluate"])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("resnet51", "Did you mean 'resnet50'"),
        ("timm/convnext_tinny", "Did you mean 'convnext_tiny'"),
        ("timm/vit_small_patch14_dinov2", "has only feature maps of stride 14"),
        ("", "there is no backbone ''"),
        ("missing.py", "must exist"),
    ],
)
def test_bad_names(capsys, tmp_path, command, value, text):
    more = {"match": ["x.pth"], "evaluate": ["--data", tmp_path]}.get(command, [])
    status, out, err = run(capsys, command, "resnet/resnet50", *more, f"backbone={value}")
    assert (status, out) == (1, "")
    assert text in err
