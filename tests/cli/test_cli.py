"""The command line: what each subcommand prints, writes and returns."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file

from detrex_backbones.cli import main


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 101, 3), dtype=np.uint8)).save(path)
    return path


def run(capsys, *argv):
    status = main([str(argument) for argument in argv])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.slow
def test_demo_proves_the_features_against_torchvision(tmp_path, capsys):
    status, out, _ = run(capsys, "demo", "--output", tmp_path)
    assert status == 0
    assert "random weights (seed 0)" in out
    assert "265 of 265 of model.backbone" in out
    difference = next(line for line in out.splitlines() if "largest relative difference" in line)
    assert float(difference.rsplit(" ", 1)[1]) <= 1e-5
    assert out.splitlines()[-1].endswith("train.init_checkpoint=torchvision://resnet50-v2")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"torchvision_resnet50_random.pth", "demo_features.safetensors", "demo_features.png"}
    # It is torchvision's own format: torchvision loads it strictly.
    state = torch.load(tmp_path / "torchvision_resnet50_random.pth", weights_only=True)
    torchvision.models.resnet50().load_state_dict(state, strict=True)


@pytest.mark.slow
def test_demo_fits_80_columns_but_for_the_line_to_copy(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, out, _ = run(capsys, "demo")
    assert [line for line in out.splitlines()[:-1] if len(line) > 80] == []


def test_demo_json(tmp_path, capsys):
    status, out, _ = run(capsys, "demo", "--output", tmp_path, "--json")
    content = json.loads(out)
    assert status == 0
    assert content["difference"] <= 1e-5
    assert content["report"]["coverage"] == 1.0
    assert content["maps"][3] == {"name": "res5", "channels": 2048, "stride": 32, "height": 19, "width": 16}


def test_features_writes_maps_and_picture(tmp_path, photo, capsys):
    status, out, _ = run(
        capsys, "features", "resnet/resnet18", "--image", photo, "--output", tmp_path / "out", "train.device=cpu"
    )
    assert status == 0
    maps = load_file(tmp_path / "out" / "photo_features.safetensors")
    assert {name: tuple(value.shape) for name, value in maps.items()} == {
        "res2": (64, 18, 26),
        "res3": (128, 9, 13),
        "res4": (256, 5, 7),
        "res5": (512, 3, 4),
    }
    with Image.open(tmp_path / "out" / "photo_features.png") as picture:
        assert min(picture.size) > 100
    assert all(name in out for name in maps)


def test_features_takes_overrides_before_and_after_options(tmp_path, photo, capsys):
    status, out, _ = run(
        capsys,
        *("features", "resnet/resnet50.py", "model.backbone.stages.depth=18", "--image", photo, "--json"),
        *("--output", tmp_path, "model.backbone.out_features=[res4]", "model.pixel_std=[1,1,1]"),
    )
    assert status == 0
    assert [row["name"] for row in json.loads(out)["maps"]] == ["res4"]


def test_features_loads_what_the_config_names_and_reports_it(tmp_path, photo, capsys):
    checkpoint = tmp_path / "r18.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), checkpoint)
    status, out, _ = run(
        capsys,
        *("features", "resnet/resnet18.py", f"train.init_checkpoint={checkpoint}", "--image", photo),
        *("--output", tmp_path, "--json"),
    )
    report = json.loads(out)["report"]
    assert status == 0
    assert (report["source"], report["scope"], report["coverage"]) == ("torchvision", "backbone", 1.0)


def test_features_of_a_config_file_that_wraps_nothing_says_what_to_write(tmp_path, photo, capsys):
    config = tmp_path / "bare.py"
    config.write_text(
        "from detrex_backbones import BasicStem, ResNet, make_stage\n"
        "from detrex_backbones.config import LazyCall as L\n"
        "model = L(ResNet)(stem=L(BasicStem)(), stages=L(make_stage)(depth=18))\n"
    )
    status, _, err = run(capsys, "features", config, "--image", photo, "--output", tmp_path)
    assert status == 1
    assert "model is a ResNet" in err
    assert "L(FeatureExtractor)(backbone=" in err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["features", "resnet/resnet51.py"], ["no ready config 'resnet/resnet51.py'", "resnet/resnet50.py"]),
        (["features", "resnet/resnet18.py", "--image", "no.jpg"], ["'no.jpg' does not exist"]),
        (["features", "resnet/resnet18.py", "train.init_checkpoint=no.pth"], ["'no.pth' does not exist"]),
        (["features", "resnet/resnet18.py", "model.backbone.freze_at=2"], ["freze_at", "Did you mean 'freeze_at'"]),
        (["features", "resnet/resnet18.py", "model.backbone.freeze_at=9"], ["freeze_at=9", "model.backbone"]),
        (["features", "resnet/resnet18.py", "train.device=cuda:99"], ["cuda:99", "On this machine: cpu"]),
        (["show", "resnet/resnet18.py", "model.backbone.stages.depth=19"], ["depth=19", "18, 34, 50, 101, 152"]),
        (["list", "resnett"], ["no ready config matches 'resnett'"]),
    ],
)
def test_our_errors_are_one_paragraph_and_status_1(argv, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(capsys, *argv)
    assert status == 1
    assert "Traceback" not in err
    for text in said:
        assert text in err
    assert list(tmp_path.rglob("*.png")) == []


@pytest.mark.parametrize(
    "argv", [[], ["nonsense"], ["features"], ["features", "a.py", "--bogus"], ["show", "a.py", "--size", "0x2"]]
)
def test_wrong_usage_is_status_2(argv, capsys):
    status, out, err = run(capsys, *argv)
    assert (status, out) == (2, "")
    assert "usage:" in err


@pytest.mark.parametrize("command", ["demo", "features", "show", "list", "export"])
def test_help_has_examples_and_fits_80_columns(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = run(capsys, command, "--help")
    assert status == 0
    assert f"examples:\n  detrex-backbones {command}" in out
    assert "--json" in out
    assert max(map(len, out.splitlines())) <= 80


def test_show_measures_without_allocating(capsys):
    status, out, _ = run(capsys, "show", "resnet/resnet50.py", "--json")
    figures = json.loads(out)
    reference = torchvision.models.resnet50()
    assert status == 0
    assert figures["parameters"] == sum(p.numel() for name, p in reference.named_parameters() if name[:2] != "fc")
    # Goyal et al. and torchvision's own table: 4.09 billion for the convolutions and the classifier.
    assert figures["gflops"] == pytest.approx(4.09, abs=0.03)
    shape = {"name": "res2", "channels": 256, "stride": 4, "height": 56, "width": 56}
    assert figures["maps"][0] == {**shape, "receptive_field": 35}
    assert figures["size"] == [224, 224]


def test_show_prints_python_or_yaml(capsys):
    _, python, _ = run(capsys, "show", "resnet/resnet18.py")
    _, yaml, _ = run(capsys, "show", "resnet/resnet18.py", "--yaml")
    assert "depth=18" in python and "cfg.model" in python
    assert "depth: 18" in yaml and "_target_: detrex_backbones.ResNet" in yaml
    assert "11,176,512" in python  # parameters of ResNet-18 without its classifier


@pytest.mark.slow
def test_show_runs_every_ready_config(capsys):
    run(capsys, "list", "--json")
    from detrex_backbones.zoo import list_configs

    for name in list_configs():
        # RF-DETR's and LW-DETR's networks run multiples of a window of patches alone.
        size = {"rf_detr": (112, 168), "lw_detr": (64, 128)}.get(name.partition("/")[0], (64, 96))
        status, out, err = run(capsys, "show", name, "--size", "{}x{}".format(*size), "--json")
        assert status == 0, err
        for row in json.loads(out)["maps"]:
            assert (row["height"], row["width"]) == tuple(-(-side // row["stride"]) for side in size)


def test_show_takes_a_size_that_the_backbone_runs(capsys):
    status, out, err = run(capsys, "show", "lw_detr/small.py", "--json")
    assert status == 0 and json.loads(out)["size"] == [256, 256], err
    assert json.loads(run(capsys, "show", "resnet/resnet18.py", "--json")[1])["size"] == [224, 224]


def test_list_filters(capsys):
    _, out, _ = run(capsys, "list", "--json")
    names = [row["name"] for row in json.loads(out)]
    assert "resnet/resnet50.py" in names and "timm/resnet152d.py" in names
    assert not any(name.startswith("common/") for name in names)
    assert all(row["description"] for row in json.loads(out))
    _, out, _ = run(capsys, "list", "resnet/*dc5*", "--json")
    assert len(json.loads(out)) == 4
    _, out, _ = run(capsys, "list")
    assert max(map(len, out.splitlines())) <= 80


def test_module_is_the_command_too():
    done = subprocess.run(
        [sys.executable, "-m", "detrex_backbones", "list", "nothing"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: no ready config matches 'nothing'.")


ENDS_WITHOUT_A_SEARCH = """
import atexit, gc, sys

def told():
    print(gc.get_threshold()[0], gc.get_freeze_count() > 10_000, len(gc.get_objects()) < 5000, file=sys.stderr)

atexit.register(told)
sys.argv = ["detrex-backbones", *{argv}]
from detrex_backbones.cli import command
raise SystemExit(command())
"""


@pytest.mark.parametrize(("argv", "status"), [(["weights", "resnet18"], 0), (["show", "nothing.py"], 1)])
def test_a_process_leaves_without_going_through_all_that_there_is(argv, status):
    code = ENDS_WITHOUT_A_SEARCH.format(argv=argv)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == status
    assert done.stderr.splitlines()[-1] == "50000 True True"
