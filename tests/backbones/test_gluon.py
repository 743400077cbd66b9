"""The ready configs of Gluon's table against timm's networks of the same name, given the same random weights."""

import pytest
import timm
import torch

from detrex_backbones import DeformBottleneckBlock, FrozenBatchNorm2d, get_config, instantiate, list_configs
from tests.backbones.timm_reference import (
    assert_equal_nets,
    timm_net,
    with_weights_of,
    without_pool_in_layer4,
)
from tests.reference import MAPS, dilate_by_hand, noise, randomise_norms

# Our config -> timm's name, and the published number of parameters in millions (with 1000 classes).
TABLE = {
    "resnet18_v1b": ("resnet18", 11.69),
    "resnet34_v1b": ("resnet34", 21.80),
    "resnet50_v1b": ("resnet50", 25.56),
    "resnet50_v1c": ("resnet50c", 25.58),
    "resnet50_v1s": ("resnet50s", 25.68),
    "resnet50_v1d": ("resnet50d", 25.58),
    "resnet101_v1b": ("resnet101", 44.55),
    "resnext50_32x4d": ("resnext50_32x4d", 25.03),
    "resnet101_v1c": ("resnet101c", 44.57),
    "resnet152_v1b": ("resnet152", 60.19),
    "seresnext50_32x4d": ("seresnext50_32x4d", 27.56),
    "resnet152_v1c": ("resnet152c", 60.21),
    "resnet101_v1s": ("resnet101s", 44.67),
    "resnext101_32x4d": ("resnext101_32x4d", 44.18),
    "resnet101_v1d": ("resnet101d", 44.57),
    "resnet152_v1d": ("resnet152d", 60.21),
    "resnext101_64x4d": ("resnext101_64x4d", 83.46),
    "seresnext101_64x4d": ("seresnext101_64x4d", 88.23),
    "seresnext101_32x4d": ("seresnext101_32x4d", 48.96),
    "resnet152_v1s": ("resnet152s", 60.32),
    "senet154": ("senet154", 115.09),
}

# Gluon's code has them; timm's has the parts. Our config -> layers.
V1E = {"resnet50_v1e": (3, 4, 6, 3), "resnet101_v1e": (3, 4, 23, 3), "resnet152_v1e": (3, 8, 36, 3)}

DC5_STYLES = [("detectron2", 2), ("torchvision", 1)]  # and the dilation of res5's first block


@pytest.fixture(scope="module")
def images():
    return noise(1, 3, 65, 99)


def config_net(name, norm=None, **stages):
    """The network of a config, but with a classifier, every map and no weights; `stages` are overrides."""
    backbone = get_config(f"gluon/{name}").model.backbone
    backbone.num_classes, backbone.out_features = 1000, MAPS
    backbone.stages.update(stages)
    if norm is not None:
        backbone.stem.norm = backbone.stages.norm = norm
        backbone.freeze_at = 0
    with torch.device("meta"):
        return instantiate(backbone)


def parameters(net):
    return sum(parameter.numel() for parameter in net.parameters())


def test_there_is_one_for_each_of_the_table_and_v1e():
    names = [name.removeprefix("gluon/").removesuffix(".py") for name in list_configs() if name.startswith("gluon/")]
    assert sorted(names) == sorted([*TABLE, *V1E])


@pytest.mark.few(2)
@pytest.mark.parametrize("name", TABLE)
def test_every_map_and_the_scores_equal_timms(name, images):
    torch.manual_seed(0)
    theirs = randomise_norms(timm.create_model(TABLE[name][0])).eval()
    assert_equal_nets(with_weights_of(theirs, config_net(name)), theirs, images)


@pytest.mark.parametrize("name", V1E)
def test_v1e_equals_timms_parts(name, images):
    theirs = timm_net(layers=V1E[name], num_classes=1000, stem_width=64, stem_type="deep", avg_down=True)
    assert_equal_nets(with_weights_of(theirs, config_net(name)), theirs, images)


@pytest.mark.few(4)
@pytest.mark.parametrize("name", TABLE)
def test_the_number_of_parameters_is_the_published_one(name):
    timms, millions = TABLE[name]
    ours = parameters(config_net(name, norm="BN"))
    with torch.device("meta"):
        assert ours == parameters(timm.create_model(timms))
    assert round(ours / 1e6, 2) == millions


@pytest.mark.parametrize(("style", "first"), DC5_STYLES)
@pytest.mark.parametrize("name", ["resnet50_v1d", "seresnext50_32x4d"])
def test_dc5_by_override_equals_timms_dilated_by_hand(name, style, first, images):
    torch.manual_seed(0)
    theirs = dilate_by_hand(randomise_norms(timm.create_model(TABLE[name][0])).eval(), first)
    if name == "resnet50_v1d":
        without_pool_in_layer4(theirs)
    ours = config_net(name, res5_dilation=2, dilation_style=style)
    assert_equal_nets(with_weights_of(theirs, ours), theirs, images)


@pytest.mark.few(3)
@pytest.mark.parametrize("style", ["detectron2", "torchvision"])
@pytest.mark.parametrize("name", [name for name in TABLE if "50" in name or name == "senet154"])
def test_dc5_and_deformable_stages_are_overrides(name, style):
    net = config_net(name, res5_dilation=2, dilation_style=style, deform_on_per_stage=[False, False, True, True])
    with torch.device("meta"):
        maps = net(torch.zeros(1, 3, 97, 131))
    assert maps["res5"].shape == (1, 2048, 7, 9)
    assert isinstance(net.res5[2], DeformBottleneckBlock)
    assert isinstance(net.stem.conv1.norm, FrozenBatchNorm2d)
