"""`detrex-backbones export`: what is written, printed and refused."""

import json

import pytest
import torch

from detrex_backbones.cli import main

SMALL = """\
from detrex_backbones import BasicStem, FeatureExtractor, ResNet, make_stage
from detrex_backbones.config import LazyCall as L

model = L(FeatureExtractor)(
    backbone=L(ResNet)(stem=L(BasicStem)(), stages=L(make_stage)(depth=18), out_features=["res2"]),
    pixel_mean=[123.675, 116.280, 103.530],
    pixel_std=[58.395, 57.120, 57.375],
)
train = dict(device="cpu")
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.py"
    path.write_text(SMALL)
    return str(path)


def test_writes_what_its_extension_says_and_how_near_it_comes(config, tmp_path, capsys):
    out = tmp_path / "net.pt2"
    assert main(["export", config, str(out), "model.backbone.out_features=[stem,res2]", "--size", "64x96"]) == 0
    printed = capsys.readouterr().out
    assert f"wrote {out}" in printed
    assert float(printed.partition("difference to the model: ")[2].split()[0]) < 1e-4
    assert set(torch.export.load(out).module()(torch.zeros(1, 3, 70, 90))) == {"stem", "res2"}


def test_json(config, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    out = tmp_path / "net.onnx"
    assert main(["export", config, str(out), "--fixed", "--size", "64x96", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["maps"] == [{"name": "res2", "channels": 64, "stride": 4}]
    assert content["difference"] < 1e-4 and content["fixed"] and content["path"] == str(out)


def test_wrong_files_and_models_are_errors_of_ours(config, tmp_path, capsys):
    assert main(["export", config, str(tmp_path / "net.pth")]) == 1
    assert ".onnx, .pt2" in capsys.readouterr().err
    bare = tmp_path / "bare.py"
    bare.write_text(SMALL + "model = model.backbone\n")
    assert main(["export", str(bare), str(tmp_path / "net.pt2")]) == 1
    assert "L(FeatureExtractor)(backbone=" in capsys.readouterr().err
    (tmp_path / "folder.pt2").mkdir()
    assert main(["export", config, str(tmp_path / "folder.pt2"), "--size", "64x96"]) == 1
    assert "can't be written" in capsys.readouterr().err
