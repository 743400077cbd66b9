"""What a file says of itself: OpenMMLab's config in it, Hugging Face's beside it. The model is held to it."""

import json

import pytest
import torch

from detrex_backbones import BasicStem, FeatureExtractor, ResNet, instantiate, load_checkpoint, make_stage
from detrex_backbones.config import LazyConfig
from detrex_backbones.errors import PreprocessingError
from detrex_backbones.zoo import infer_config
from tests.reference import our_net, torchvision_net

MMDET_2 = """
dataset_type = 'CocoDataset'
model = dict(
    type='FasterRCNN',
    backbone=dict(type='ResNet', depth=50, norm_cfg=dict(type='BN', requires_grad=False), style='caffe'),
    rpn_head=dict(anchor=dict(scales=[8], ratios=[0.5, 1.0, 2.0])))
img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)
lr = 0.02
"""
MMDET_3 = """
model = dict(
    backbone=dict(type='ResNet', depth=50, style='pytorch'),
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True))
"""
CAFFE = {"pixel_mean": [103.53, 116.28, 123.675], "pixel_std": [1.0, 1.0, 1.0], "input_format": "BGR"}
RGB = {"pixel_mean": [123.675, 116.28, 103.53], "pixel_std": [58.395, 57.12, 57.375], "input_format": "RGB"}


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    net = torchvision_net("resnet50")
    return {f"backbone.{key}": value for key, value in net.state_dict().items() if not key.startswith("fc.")}


def write(path, state, text, key="config"):
    torch.save({"meta": {key: text, "epoch": 12}, "state_dict": state}, path)
    return path


def model(stride_in_1x1=False, **pixels):
    stages = make_stage(50, stride_in_1x1=stride_in_1x1)
    return FeatureExtractor(ResNet(BasicStem(), stages, out_features=["res5"]), **pixels)


def test_openmmlabs_config_is_held_against_the_model(tmp_path, state):
    caffe = write(tmp_path / "caffe.pth", state, MMDET_2)
    report = load_checkpoint(model(stride_in_1x1=True, **CAFFE), caffe)
    assert report.stated == {**CAFFE, "stride_in_1x1": True}
    with pytest.raises(PreprocessingError) as caught:
        load_checkpoint(model(**RGB), caffe)
    assert "model.backbone.stages.stride_in_1x1=true" in str(caught.value)
    assert "model.pixel_mean=[103.53,116.28,123.675]" in str(caught.value)
    assert "model.input_format=BGR" in str(caught.value)
    of_torchvision = write(tmp_path / "pytorch.pth", state, MMDET_3, "cfg")
    assert load_checkpoint(model(**RGB), of_torchvision).stated == {**RGB, "stride_in_1x1": False}
    with pytest.raises(PreprocessingError, match="stride_in_1x1=false"):
        load_checkpoint(model(stride_in_1x1=True, **RGB), of_torchvision)


@pytest.mark.parametrize(("text", "stride"), [(MMDET_2, True), (MMDET_3, False)])
def test_infer_writes_what_the_config_says(tmp_path, state, text, stride):
    path = write(tmp_path / "net.pth", state, text)
    inferred = infer_config(path)
    assert inferred.preprocessing == (CAFFE if stride else RGB)
    assert not inferred.assumed.keys() & {"pixel_mean", "pixel_std", "input_format", "stride_in_1x1"}
    assert inferred.stages.get("stride_in_1x1", False) is stride
    (tmp_path / "config.py").write_text(inferred.to_py(str(path)))
    load_checkpoint(instantiate(LazyConfig.load(tmp_path / "config.py").model), path)


def test_infer_writes_another_eps(tmp_path, state):
    path = write(tmp_path / "net.pth", state, MMDET_2.replace("requires_grad=False", "eps=1e-3"))
    (tmp_path / "config.py").write_text(infer_config(path).to_py(str(path)))
    made = instantiate(LazyConfig.load(tmp_path / "config.py").model)
    assert {module.eps for module in made.modules() if hasattr(module, "eps")} == {1e-3}
    load_checkpoint(made, path)
    with pytest.raises(PreprocessingError, match=r"norm_eps=0\.001"):
        load_checkpoint(model(stride_in_1x1=True, **CAFFE), path)


@pytest.mark.few(2)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "model = dict(",
        "model = __import__('os').abort()",
        "model = dict(backbone=dict(type=['ResNet'], norm_cfg=dict(eps='x')), data_preprocessor=dict(mean=1, std=[]))",
        "img_norm_cfg = dict(mean=[float('nan')] * 3, std=['a', 1, 2])",
        "model = " + "(" * 500 + ")" * 500,
        "model = " + "-" * 5000 + "1",
        "x" * (1 << 21),
    ],
    ids=range(8),
)
def test_a_strangers_config_is_data(tmp_path, state, text):
    report = load_checkpoint(model(**RGB), write(tmp_path / "net.pth", state, text))
    assert report.stated == {}


def test_hugging_faces_preprocessor_beside_the_weights(tmp_path):
    net = torchvision_net("resnet50")
    torch.save(net.state_dict(), tmp_path / "pytorch_model.bin")
    extractor = FeatureExtractor(our_net(net), **RGB)
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_rescale": True, "rescale_factor": 1 / 255}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(half))
    with pytest.raises(PreprocessingError, match=r"model\.pixel_mean=\[127\.5,127\.5,127\.5\]"):
        load_checkpoint(extractor, tmp_path / "pytorch_model.bin")
    usual = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    for given in (usual, {**half, "do_normalize": False}, {**half, "image_mean": "x"}, [1]):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(given))
        stated = load_checkpoint(extractor, tmp_path / "pytorch_model.bin").stated
        assert stated.get("pixel_mean", []) == (pytest.approx(RGB["pixel_mean"]) if given is usual else [])
        assert stated.get("input_format") == ("RGB" if given is usual else None)
