"""Exported files run without this library, at other sizes than were traced, and give the model's maps."""

import importlib.util
import json

import numpy as np
import pytest
import torch

from detrex_backbones import BasicStem, FeatureExtractor, ResNet, TimmBackbone, make_stage
from detrex_backbones import export as export_module
from detrex_backbones.backbones.base import Backbone
from detrex_backbones.errors import ArgumentError, ExportError
from detrex_backbones.export import export_model
from tests.reference import assert_same_maps, noise, randomise_norms

MEAN, STD = [103.53, 116.28, 123.675], [57.375, 57.12, 58.395]


def resnet() -> ResNet:
    stages = make_stage(depth=18, norm="FrozenBN")
    return ResNet(BasicStem(norm="FrozenBN"), [blocks[:1] for blocks in stages[:2]], out_features=["res3", "res2"])


def extractor(backbone: Backbone | None = None) -> FeatureExtractor:
    torch.manual_seed(0)
    net = FeatureExtractor(backbone or resnet(), pixel_mean=MEAN, pixel_std=STD, input_format="BGR")
    return randomise_norms(net).eval()


def photos(*shape: int) -> torch.Tensor:
    return noise(*shape).abs() * 80


def test_onnx_takes_any_number_of_photos_of_any_size(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    net = extractor()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    done = export_model(net, tmp_path / "net.onnx", (64, 96))
    assert done.maps == {"res3": (128, 8), "res2": (64, 4)}
    assert done.difference < 1e-4
    session = onnxruntime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["images"]
    names = [value.name for value in session.get_outputs()]
    assert names == ["res3", "res2"]
    for shape in ((1, 3, 65, 131), (4, 3, 90, 40)):
        images = photos(*shape)
        maps = zip(names, session.run(None, {"images": images.numpy()}), strict=True)
        with torch.no_grad():
            assert_same_maps({name: torch.from_numpy(value) for name, value in maps}, net(images), 1e-4)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    meta = session.get_modelmeta().custom_metadata_map
    assert json.loads(meta["maps"])["res2"] == {"channels": 64, "stride": 4}
    np.testing.assert_allclose(json.loads(meta["pixel_mean"]), MEAN, rtol=1e-6)
    assert meta["input_format"] == "BGR"


@pytest.mark.slow
def test_pt2_takes_any_size_and_pads_as_the_backbone_wants_it(tmp_path):
    net = extractor(TimmBackbone("convnext_atto", depths=(1, 1, 1, 1)))
    done = export_model(net, tmp_path / "net.pt2", (64, 96))
    assert done.difference < 1e-4
    extra = {export_module.METADATA: ""}
    program = torch.export.load(done.path, extra_files=extra).module()
    images = photos(1, 3, 65, 131)
    with torch.no_grad():
        assert_same_maps(program(images), net(images), 1e-4)
    assert json.loads(extra[export_module.METADATA])["maps"]["p3"] == {"channels": 320, "stride": 32}


def test_a_fixed_size_is_the_only_one(tmp_path):
    done = export_model(extractor(), tmp_path / "net.pt2", (64, 96), fixed=True)
    program = torch.export.load(done.path).module()
    assert program(photos(5, 3, 64, 96))["res2"].shape == (5, 64, 16, 24)
    with pytest.raises(Exception, match="64"):
        program(photos(5, 3, 96, 64))


def test_a_model_that_cannot_be_traced_is_an_error_with_a_way_out(tmp_path):
    class Looks(ResNet):
        def forward(self, x):
            return super().forward(x if x.mean() > 0 else -x)

    net = extractor(Looks(BasicStem(), [make_stage(depth=18)[0]]))
    with pytest.raises(ExportError, match=r"can't follow the model at any size.*--fixed"):
        export_model(net, tmp_path / "net.pt2", (64, 96))
    assert not list(tmp_path.iterdir())


def test_a_file_that_computes_something_else_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "TOLERANCE", -1.0)
    with pytest.raises(ExportError, match=r"differ from the model's by a relative .*not written"):
        export_model(extractor(), tmp_path / "net.pt2", (64, 96))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "said"), [("net.pth", r"\.onnx, \.pt2"), ("no/net.onnx", "no folder")])
def test_what_cannot_be_written_is_said_first(tmp_path, name, said):
    with pytest.raises(ArgumentError, match=said):
        export_model(extractor(), tmp_path / name)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(
        ExportError,
        match=r"writing ONNX takes .*onnxscript, not installed here: pip install 'detrex-backbones\[export\]'",
    ):
        export_model(extractor(), tmp_path / "net.onnx")


@pytest.mark.slow
def test_without_onnxruntime_it_is_written_unchecked(tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "_onnx_session", lambda content, names: None)
    assert export_model(extractor(), tmp_path / "net.onnx", (64, 96)).difference is None
    assert (tmp_path / "net.onnx").stat().st_size > 100_000


def test_a_backbone_that_was_never_asked_for_its_sizes_says_what_to_do():
    net = extractor(TimmBackbone("resnet14t"))
    with pytest.raises(Exception, match=r"ask for backbone\.size_divisibility"):
        torch.export.export(net, (photos(1, 3, 64, 64),))
