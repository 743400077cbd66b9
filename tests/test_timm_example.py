"""examples/timm_example.py: the backbone with weights of one's own, and DINO around it where detrex is importable."""

import sys
from pathlib import Path

import timm
import torch

from detrex_backbones import LazyConfig, TimmBackbone, build_model, instantiate
from detrex_backbones.zoo.meta_build import build_on_meta
from tests.interop.theirs import link_configs, need_detectron2, need_detrex

EXAMPLE = Path(__file__).parents[1] / "examples" / "timm_example.py"


def test_own_weights_by_init_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "projects", None)  # as where there is no detrex
    torch.manual_seed(0)
    theirs = timm.create_model("resnet18d")
    torch.save(theirs.state_dict(), tmp_path / "mine.pth")
    overrides = ["model.backbone.model_name=resnet18d", f"train.init_checkpoint={tmp_path / 'mine.pth'}"]
    model = build_model(LazyConfig.apply_overrides(LazyConfig.load(EXAMPLE), overrides))
    ours = {key.removeprefix("backbone.timm_model."): value for key, value in model.state_dict().items()}
    assert torch.equal(ours["layer4.1.conv2.weight"].cpu(), theirs.layer4[1].conv2.weight)
    assert [shape.stride for shape in model.backbone.output_shape().values()] == [8, 16, 32]


def test_in_detrexs_dino(monkeypatch):
    link_configs(monkeypatch, detectron2=need_detectron2(), detrex=need_detrex())
    cfg = LazyConfig.load(EXAMPLE)
    shapes = build_on_meta(cfg.model.backbone).output_shape()
    assert {key: shape.channels for key, shape in shapes.items()} == {
        key: shape.channels for key, shape in cfg.model.neck.input_shapes.items()
    }
    cfg.model.device = "cpu"
    with torch.device("meta"):
        neck = instantiate(cfg.model.neck)
    assert isinstance(instantiate(cfg.model).backbone, TimmBackbone)
    assert len(neck.convs) == 3 and set(cfg) >= {"dataloader", "lr_multiplier", "optimizer", "train"}
