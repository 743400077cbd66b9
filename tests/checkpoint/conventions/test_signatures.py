"""Every signature is recognised, by its own convention alone; what names cannot tell is said."""

import pytest
import timm
import torch
import torchvision

from detrex_backbones.checkpoint.entry import Status
from detrex_backbones.checkpoint.names.conventions import conventions
from detrex_backbones.checkpoint.names.readings import AS_STORED, readings
from detrex_backbones.config import LazyCall
from detrex_backbones.errors import ArgumentError, CheckpointMatchError
from detrex_backbones.zoo import build_on_meta
from tests.checkpoint.conventions.files import load, write_torch
from tests.checkpoint.conventions.nets import our_resnet
from tests.old_libraries import skip_before
from tests.reference import to_our_names, torchvision_net


def timm_state(name):
    if name.startswith("regnet"):
        skip_before("timm", "1.0.31", "its RegNets read numbers while they are made")
    return build_on_meta(LazyCall(timm.create_model)(model_name=name)).state_dict()


def torchvision_state(name):
    build = getattr(torchvision.models, name)
    if name.startswith("regnet"):  # computes its widths with tensors, so it can't be built without memory
        return build().state_dict()
    with torch.device("meta"):
        return build().state_dict()


def conv(kernel):
    return torch.zeros(32, 3, kernel, kernel)


# Names that tell a source; every other tensor has one dimension.
SIGNATURES = [
    ("msra", ["res2_0_branch2a_bn_gamma", "res2_0_branch2a_bn_beta", "res2_0_branch2a_w", "conv1_w"], {}),
    ("caffe2", ["res2_0_branch2a_bn_s", "res2_0_branch2a_bn_rm", "res2_0_branch2a_bn_riv", "conv1_w"], {}),
    ("detectron", ["res2_0_branch2a_bn_s", "res2_0_branch2a_bn_b", "res2_0_branch2a_b", "conv1_w"], {}),
    ("detectron-gn", ["res2_0_branch2a_gn_s", "res2_0_branch2a_gn_b", "conv1_w"], {}),
    (
        "detectron2",
        ["stem.conv1.weight", "stem.conv1.norm.weight", "res2.0.conv1.weight", "res2.0.shortcut.weight"],
        {},
    ),
    ("detectron2", ["backbone.bottom_up.stem.conv1.weight", "backbone.bottom_up.res2.0.conv1.weight"], {}),
    ("detectron2", ["backbone.stem.conv1.weight", "backbone.res2.0.conv1.weight", "roi_heads.res5.0.conv1.weight"], {}),
    (
        "detectron2-resnest",
        ["stem.conv1_1.weight", "stem.conv1_3.weight", "res2.0.conv1.weight", "res2.0.conv2.fc1.weight"],
        {},
    ),
    ("pycls", ["stem.conv.weight", "s1.b1.f.a.weight"], {"stem.conv.weight": 3}),
    ("pycls-resnet", ["stem.conv.weight", "s1.b1.f.a.weight"], {"stem.conv.weight": 7}),
    ("timm-regnet", ["stem.conv.weight", "s1.b1.conv1.conv.weight"], {}),
    ("torchvision-regnet", ["stem.0.weight", "trunk_output.block1.block1-0.f.a.0.weight"], {}),
    ("torchvision", ["conv1.weight", "bn1.weight", "layer1.0.conv1.weight"], {"conv1.weight": 7}),
    (
        "mmdet-regnet",
        ["conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer1.0.conv3.weight"],
        {"conv1.weight": 3},
    ),
    (
        "timm-hrnet",
        ["conv1.weight", "bn1.weight", "conv2.weight", "layer1.0.conv1.weight", "stage2.0.branches.0.0.conv1.weight"],
        {"conv1.weight": 3},
    ),
    ("gluon", ["conv1.0.weight", "bn1.weight", "layer1.0.downsample.1.weight", "layer1.0.downsample.2.weight"], {}),
    ("gluon-v1c", ["conv1.0.weight", "bn1.weight", "layer1.0.downsample.0.weight", "layer1.0.downsample.1.weight"], {}),
    (
        "timm-resnest",
        ["conv1.0.weight", "bn1.weight", "layer1.0.conv2.conv.weight", "layer1.0.conv2.fc1.weight"],
        {},
    ),
    ("mmdet", ["stem.0.weight", "stem.7.weight", "layer1.0.conv1.weight", "layer2.0.downsample.2.weight"], {}),
    ("mmdet-v1c", ["stem.0.weight", "stem.7.weight", "layer1.0.conv1.weight", "layer2.0.downsample.0.weight"], {}),
    (
        "mmpretrain",
        ["stem.0.conv.weight", "stem.2.bn.weight", "layer1.0.conv1.weight", "layer2.0.downsample.2.weight"],
        {},
    ),
    (
        "cadene",
        ["layer0.conv1.weight", "layer1.0.conv1.weight", "layer1.0.se_module.fc1.weight", "last_linear.weight"],
        {},
    ),
    (
        "gluon-se",
        ["conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer1.0.se.fc1.weight"],
        {"conv1.weight": 7},
    ),
    (
        "mmpretrain-se",
        ["conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer1.0.se_layer.conv1.conv.weight"],
        {"conv1.weight": 7},
    ),
    ("mmdet-darknet", ["conv1.conv.weight", "conv_res_block1.conv.conv.weight"], {}),
    ("timm-darknet", ["stem.conv1.conv.weight", "stages.0.conv_down.conv.weight"], {}),
    (
        "mmdet-ssd",
        [f"features.{index}.weight" for index in (0, 28, 31, 33)],
        {"features.28.weight": 3, "features.33.weight": 1},
    ),
    (
        "huggingface",
        ["resnet.embedder.embedder.convolution.weight", "resnet.encoder.stages.0.layers.0.layer.0.convolution.weight"],
        {},
    ),
]


@pytest.mark.parametrize(("source", "names", "kernels"), SIGNATURES)
def test_signature(source, names, kernels):
    tensors = {name: conv(kernels[name]) if name in kernels else torch.zeros(8) for name in names}
    found = [reading.source for reading in readings(tensors)]
    assert found == [AS_STORED, source]


@pytest.mark.parametrize(
    ("source", "state", "name"),
    [
        ("torchvision", torchvision_state, "resnet18"),
        ("torchvision", torchvision_state, "resnext50_32x4d"),
        ("torchvision", timm_state, "resnet50"),
        ("gluon", timm_state, "resnet18d"),
        ("gluon", timm_state, "seresnext26d_32x4d"),
        ("gluon-v1c", timm_state, "resnet50c"),
        ("gluon-v1c", timm_state, "resnet50s"),
        ("gluon-v1c", timm_state, "senet154"),
        ("gluon-se", timm_state, "seresnext50_32x4d"),
        ("timm-resnest", timm_state, "resnest14d"),
        ("timm-regnet", timm_state, "regnety_002"),
        ("timm-darknet", timm_state, "darknet53"),
        ("timm-hrnet", timm_state, "hrnet_w18_small"),
        ("cadene", timm_state, "legacy_seresnext26_32x4d"),
        ("cadene", timm_state, "legacy_senet154"),
        ("torchvision-regnet", torchvision_state, "regnet_y_400mf"),
        (None, torchvision_state, "vgg16"),
        (None, torchvision_state, "vgg19_bn"),
        (None, timm_state, "convnext_atto"),
    ],
)
def test_real_network_is_recognised(source, state, name):
    found = readings(state(name))
    assert [reading.source for reading in found] == [AS_STORED, *([source] if source else [])]
    # And every name of it is read, but for what has no place in ours.
    if source and source not in ("timm-hrnet", "cadene"):
        assert [entry.checkpoint_key for entry in found[1].entries if entry.status is Status.NO_NAME] == []


@pytest.mark.parametrize(
    ("source", "state", "name"),
    [
        ("gluon", timm_state, "resnet50d"),
        ("gluon-v1c", timm_state, "resnet50s"),
        ("gluon-v1c", timm_state, "senet154"),
        ("gluon-se", timm_state, "seresnext50_32x4d"),
        ("torchvision", torchvision_state, "resnet50"),
        ("torchvision-regnet", torchvision_state, "regnet_y_400mf"),
    ],
)
def test_real_file_gets_its_own_names_again(source, state, name):
    convention = conventions()[source]
    for key, tensor in state(name).items():
        ours = convention.read(key, tensor.dim())
        assert ours is not None and convention.write(ours, tensor.dim()) == key


def test_detectron2s_r50_may_be_msras_or_torchvisions(tmp_path):
    state = to_our_names(torchvision_net("resnet18").state_dict())
    report = load(our_resnet(classes=1000), write_torch(tmp_path / "R.pth", {"model": state}))
    assert "stride_in_1x1=True, BGR" in report.lookalikes


def test_detectron_has_two_strides():
    found = readings({name: torch.empty(8) for name in ("res2_0_branch2a_bn_s", "conv1_w")})
    assert "stride_in_1x1=True" in found[1].lookalikes


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("torchvision", ["caffe-style", "stride_in_1x1=True", "BGR", "32x8d", "DC5"]),
        ("timm-regnet", ["BGR", "RGB", "pycls"]),
        ("pycls", ["BGR", "RGB"]),
        ("mmdet-regnet", ["BGR", "RGB"]),
        ("torchvision-regnet", ["wider", "RGB", "BGR"]),
        ("mmdet-darknet", ["LeakyReLU(0.1)", "LeakyReLU(0.01)"]),
        ("timm-darknet", ["LeakyReLU(0.1)", "LeakyReLU(0.01)"]),
        ("detectron2", ["stride_in_1x1=True, BGR", "stride_in_1x1=False, RGB"]),
        ("mmdet-gn", ["standardisation"]),
        ("mmdet-ssd", ["ceil_mode"]),
        ("cadene", ["not interchangeable"]),
    ],
)
def test_what_names_cannot_tell_is_said(source, words):
    assert all(word in conventions()[source].lookalikes for word in words)


def test_source_that_is_named_is_believed():
    """Shapes tell networks apart only where nobody says what it is: a CIFAR ResNet has a 3x3 stem."""
    state = {name: torch.empty(8) for name in ("bn1.weight", "layer1.0.conv1.weight")} | {"conv1.weight": conv(3)}
    assert [reading.source for reading in readings(state)] == [AS_STORED]
    assert [reading.source for reading in readings(state, "torchvision")] == ["torchvision"]


def test_source_whose_marks_are_not_there():
    with pytest.raises(CheckpointMatchError, match=r"source='gluon' is known by.*conv1\.0\.weight"):
        readings({"fc.weight": torch.empty(2, 2)}, "gluon")


def test_unknown_source():
    with pytest.raises(ArgumentError, match=r"source='gluom'.*Did you mean 'gluon'"):
        readings({"fc.weight": torch.empty(2, 2)}, "gluom")
