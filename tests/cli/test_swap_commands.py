"""`backbone=` on the command line, and the figures and filters of `list`."""

import json

import pytest
import timm
import torch
import torchvision

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
    row = next(line for line in out.splitlines() if line.startswith("resnet/resnet50 "))
    assert row.split() == ["resnet/resnet50", "80.86", "95.43", "23.5", "4.09", "4", "8", "16", "32", "256-2048"]
    assert max(map(len, out.splitlines())) <= 80
    status, out, _ = run(capsys, "list", "resnet/resnet?8", "--sort", "top1", "--json")
    tops = [row["top1"] for row in json.loads(out)]
    assert status == 0 and tops == sorted(tops, reverse=True)


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


def test_filters_know_the_accuracies_of_timm(capsys):
    status, out, err = run(capsys, "list", "timm/convnext_atto*", "--min-top1", "75.8", "--json")
    rows = json.loads(out)
    assert status == 0
    assert [row["name"] for row in rows] == ["timm/convnext_atto_ols"]
    assert rows[0]["top1"] == pytest.approx(75.9, abs=0.05) and rows[0]["strides"] == [4, 8, 16, 32]
    assert err == "left out, no known top-1: timm/convnext_atto_rms\n"
    status, out, err = run(capsys, "list", "timm/convnext_atto_rms", "--min-top1", "70")
    assert (status, out) == (1, "")
    assert "none of the 1 that match the name passes the filters (top1).\n  left out, no known top-1: " in err


def test_models_that_give_no_maps_are_named_and_left_out(capsys, monkeypatch):
    from detrex_backbones import zoo
    from detrex_backbones.errors import ArgumentError

    build = zoo.build_on_meta

    def refuse_one(node):
        if node.model_name == "convnext_atto_ols":
            raise ArgumentError("no maps")
        return build(node)

    monkeypatch.setattr(zoo, "build_on_meta", refuse_one)
    status, out, err = run(capsys, "list", "timm/convnext_atto*", "--figures", "--json")
    assert status == 0
    assert [row["name"] for row in json.loads(out)] == ["timm/convnext_atto", "timm/convnext_atto_rms"]
    assert err == "left out, can't be built as a backbone: timm/convnext_atto_ols\n"


def test_figures_of_timm_are_of_the_whole_network(capsys):
    status, out, _ = run(capsys, "list", "timm/vit_tiny_patch16_224", "--figures", "--json")
    row = json.loads(out)[0]
    assert status == 0
    with torch.device("meta"):
        whole = timm.create_model("vit_tiny_patch16_224", num_classes=0, global_pool="")
    assert row["parameters"] == pytest.approx(sum(value.numel() for value in whole.parameters()), rel=1e-3)


def test_gflops_are_those_that_torchvision_publishes(capsys):
    for name in ("resnet18", "resnet50", "resnext50_32x4d"):
        status, out, _ = run(capsys, "list", f"resnet/{name}", "--figures", "--json")
        published = torchvision.models.get_model_weights(name).IMAGENET1K_V1.meta["_ops"]
        # Without the classifier, of at most 2048 x 1000 multiply-adds.
        assert status == 0 and json.loads(out)[0]["gflops"] == pytest.approx(published, abs=0.0026)
