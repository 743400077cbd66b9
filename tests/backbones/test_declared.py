"""A backbone that declares other maps than it gives is an error that names both, before anything is made of them."""

import copy
import pickle

import pytest
import torch
from torch import nn

from detrex_backbones import Backbone, FeatureExtractor, TimmBackbone, build_model, get_config
from detrex_backbones.backbones.declared import check_maps
from detrex_backbones.cli import main
from detrex_backbones.config import LazyCall as L
from detrex_backbones.errors import ArgumentError
from detrex_backbones.layers import ShapeSpec

PIXELS = {"pixel_mean": [0.0] * 3, "pixel_std": [255.0] * 3}


class Mine(Backbone):
    """One convolution, that gives 8 channels at stride 4, and says what it is told to say."""

    def __init__(self, channels: int = 8, stride: int = 4, name: str = "p2") -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self._set_maps({name: (channels, stride)})

    def forward(self, x):
        return {"p2": self.conv(x)}


def extractor(**kwargs):
    return FeatureExtractor(Mine(**kwargs), **PIXELS)


IMAGE = torch.zeros(1, 3, 96, 128)
WRONG = [
    ({"channels": 16}, r"declares 'p2' with 16 channels, but gives 8\."),
    ({"stride": 8}, r"declares 'p2' with stride 8, but gives 24x32 pixels of 96x128\."),
    ({"stride": 2}, r"declares 'p2' with stride 2, but gives 24x32 pixels of 96x128\."),
    ({"channels": 16, "stride": 8}, r"'p2' with 16 channels at stride 8, but gives 8, 24x32 pixels of 96x128\."),
    ({"name": "p3"}, r"declares the maps p3, but gives p2\."),
]


@pytest.mark.parametrize(("kwargs", "message"), WRONG)
def test_a_feature_extractor_says_so_at_the_first_forward(kwargs, message):
    with pytest.raises(ArgumentError, match="Mine contradicts itself: its output_shape.. .*" + message):
        extractor(**kwargs)(IMAGE)


@pytest.mark.parametrize(("kwargs", "message"), WRONG)
def test_so_does_a_built_model_whatever_holds_the_backbone(kwargs, message):
    cfg = get_config("resnet/resnet18.py")
    cfg.model, cfg.train.device, cfg.train.init_checkpoint = L(Holder)(body=L(Mine)(**kwargs)), "cpu", ""
    model = build_model(cfg)
    with pytest.raises(ArgumentError, match=message):
        model(IMAGE)


class Holder(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x)


def test_it_looks_once(monkeypatch):
    model = extractor()
    model(IMAGE)
    monkeypatch.setattr(Mine, "output_shape", lambda self: pytest.fail("asked again"))
    model(IMAGE)
    assert not model.backbone._forward_hooks


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_looks_for_itself(copied):
    model = extractor(channels=16)
    with pytest.raises(ArgumentError, match="contradicts itself"):
        copied(model)(IMAGE)
    right = extractor()
    other = copied(right)
    other(IMAGE)
    assert not other.backbone._forward_hooks and right.backbone._forward_hooks


def test_a_wrong_backbone_stays_wrong():
    model = extractor(channels=16)
    for _ in range(2):
        with pytest.raises(ArgumentError, match="contradicts itself"):
            model(IMAGE)


def test_what_is_no_dict_is_refused(monkeypatch):
    monkeypatch.setattr(Mine, "forward", lambda self, x: self.conv(x))
    with pytest.raises(ArgumentError, match=r"Mine\.forward\(\) returns a Tensor\. It must be a dict"):
        extractor()(IMAGE)


def test_pixels_that_are_lost_at_the_edge_are_no_other_stride():
    declared = {"p1": ShapeSpec(192, stride=4), "p2": ShapeSpec(288, stride=8)}
    check_maps("Inception", declared, (299, 299), {"p1": (192, 71, 71), "p2": (288, 35, 35)})
    check_maps("small", {"p5": ShapeSpec(8, stride=32)}, (33, 64), {"p5": (8, 2, 2)})
    check_maps("scores", {"linear": ShapeSpec(1000)}, (64, 64), {"linear": (1000,)})
    with pytest.raises(ArgumentError, match="stride 32"):
        check_maps("narrow", {"p5": ShapeSpec(8, stride=32)}, (224, 224), {"p5": (8, 7, 14)})


def test_networks_that_convolve_without_padding_pass():
    model = FeatureExtractor(TimmBackbone("inception_v3", out_indices=(1, 2, 3)), **PIXELS).eval()
    with torch.no_grad():
        assert list(model(torch.zeros(1, 3, 160, 192))) == ["p1", "p2", "p3"]


def test_a_compiled_model_is_not_disturbed():
    model = extractor().backbone.eval()
    found = torch.compile(model, backend="eager", fullgraph=True)(IMAGE)
    assert found["p2"].shape == (1, 8, 24, 32)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(("kwargs", "status"), [("channels=16, stride=8", 1), ("", 0)])
def test_show_runs_it_on_the_meta_device(tmp_path, capsys, kwargs, status, alone):
    config = tmp_path / "config.py"
    config.write_text(
        "from detrex_backbones.config import LazyCall as L\nfrom detrex_backbones import FeatureExtractor\n"
        f"from tests.backbones.test_declared import Mine\nmodel = L(Mine)({kwargs})\n"
        + ("" if alone else "model = L(FeatureExtractor)(backbone=model, pixel_mean=[0] * 3, pixel_std=[1] * 3)\n")
    )
    assert main(["show", str(config)]) == status
    shown = capsys.readouterr()
    if status:
        assert shown.err.startswith("error: Mine contradicts itself") and "16 channels at stride 8" in shown.err
        assert "56x56 pixels of 224x224" in shown.err and shown.out == ""
