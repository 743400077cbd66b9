"""`backbone=` on the command line, and the figures and filters of `list`."""

import json

import pytest

from detrex_backbones.cli import main


def run(capsys, *argv):
    status = main(argv)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_show_swaps_before_other_overrides(capsys):
    status, out, err = run(
        capsys, "show", "resnet/resnet50", "model.backbone.out_indices=[0, 1]", "backbone=timm/convnext_atto", "--json"
    )
    assert status == 0
    assert [row["channels"] for row in json.loads(out)["maps"]] == [40, 80]
    assert "train.init_checkpoint: '' -> 'timm://convnext_atto.d2_in1k'" in err.splitlines()


def test_features_with_another_backbone(capsys, tmp_path):
    status, out, err = run(
        capsys,
        *("features", "resnet/resnet50", "backbone=resnet18", "train.init_checkpoint=''", "train.device=cpu"),
        *("--output", str(tmp_path), "--json"),
    )
    assert status == 0, err
    assert [row["channels"] for row in json.loads(out)["maps"]] == [64, 128, 256, 512]


@pytest.mark.parametrize("argv", [("show", "resnet/resnet50"), ("match", "resnet/resnet50", "x.pth")])
def test_a_wrong_name(capsys, argv):
    status, out, err = run(capsys, *argv, "backbone=resnet51")
    assert (status, out) == (1, "")
    assert "there is no backbone 'resnet51'. Did you mean 'resnet50'" in err


def test_figures(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = run(capsys, "list", "resnet/resnet50", "--figures")
    assert status == 0
    assert "23.5 M  4.11 GFLOPs" in out and "4:256 8:512 16:1024 32:2048" in out
    assert "torchvision://resnet50-v2  80.86 %" in out
    assert max(map(len, out.splitlines())) <= 80


def test_filters(capsys):
    names = ("--stride", "16", "--max-params", "30", "--max-gflops", "7", "--min-top1", "80")
    status, out, _ = run(capsys, "list", "resnet/*", *names, "--json")
    rows = json.loads(out)
    assert status == 0
    assert [row["name"] for row in rows] == ["resnet/resnet50_dc5_detectron2.py", "resnet/resnet50_dc5_torchvision.py"]
    assert rows[0]["top1"] == 80.858 and rows[0]["strides"] == [4, 8, 16, 16]
    status, _, err = run(capsys, "list", "resnet/resnet18", "--max-params", "1")
    assert status == 1 and "none of the 1 that match" in err


def test_timm_models(capsys):
    status, out, _ = run(capsys, "list", "timm/convnext_atto*", "--json")
    assert status == 0
    assert "timm/convnext_atto" in [row["name"] for row in json.loads(out)]
