"""Every ready config of a backbone as an override of a detector's config and of a plain FeatureExtractor's."""

import pytest
import torch

from detrex_backbones import get_config, instantiate, swap_backbone
from detrex_backbones.checkpoint.fetch import find_known
from detrex_backbones.config.nodes import to_plain
from detrex_backbones.errors import ArgumentError
from detrex_backbones.zoo.backbone_names import weights_of
from detrex_backbones.zoo.listing import ready_backbones
from tests.swap_models import dino

PIXELS = ("pixel_mean", "pixel_std", "input_format")
# What has no map of stride 4, or none of 32.
WITHOUT_STRIDE = {"vgg/ssd_vgg16": (4, 32), **dict.fromkeys([f"deimv2/{size}" for size in "smlx"], (4,))}
# A ViT with patches of 14 pixels, whose pyramid would have strides that no detector asks for: refused.
PATCH_14 = "rf_detr/base"

# Families of many sizes: two of each now, the others with `-m slow`.
FAMILIES = ("gluon/", "regnet/")


def configs():
    names = ready_backbones()
    others = {name for family in FAMILIES for name in [one for one in names if one.startswith(family)][2:]}
    return [pytest.param(name, marks=pytest.mark.slow if name in others else ()) for name in names]


def swapped(cfg, name):
    """The config after the override, and its model, without values."""
    swap_backbone(cfg, name)  # which `backbone=NAME` on the command line calls
    with torch.device("meta"):
        return cfg, instantiate(cfg.model)


def check_weights_and_images(cfg, name):
    """The best known weights of the network, or none, and the images of these."""
    own, known = get_config(name), weights_of(name)
    checkpoint = cfg.train.init_checkpoint
    if name.startswith("timm/"):  # timm's own network of that name
        assert checkpoint.startswith(f"timm://{own.model.backbone.model_name}.")
    else:
        assert checkpoint == (known[0].name if known else "")
    images = find_known(checkpoint).traits if checkpoint else {key: to_plain(own.model[key]) for key in PIXELS}
    assert {key: to_plain(cfg.model[key]) for key in PIXELS} == {key: images[key] for key in PIXELS}


@pytest.mark.few(2)
@pytest.mark.parametrize("name", configs())
def test_in_a_feature_extractor(name):
    cfg = get_config("resnet/resnet50" if name != "resnet/resnet50" else "gluon/resnet101_v1b")
    if name == PATCH_14:
        with pytest.raises(ArgumentError, match=r"has only feature maps of stride 14.*Nothing was changed"):
            swapped(cfg, name)
        return
    if 4 in WITHOUT_STRIDE.get(name, ()):
        with pytest.raises(ArgumentError, match=f"{name} has no map of stride 4"):
            swapped(cfg, name)
        return
    cfg, model = swapped(cfg, name)
    strides = [shape.stride for shape in model.backbone.output_shape().values()]
    assert strides[:4] == ([4, 8, 16, 16] if "_dc5_" in name else [4, 8, 16, 32])
    check_weights_and_images(cfg, name)


@pytest.mark.few(1)
@pytest.mark.parametrize("name", configs())
def test_in_a_detector(name):
    if name == PATCH_14:
        with pytest.raises(ArgumentError, match=r"has only feature maps of stride 14.*Nothing was changed"):
            swapped(dino(), name)
        return
    cfg, model = swapped(dino(), name)
    neck, shapes = cfg.model.neck, model.backbone.output_shape()
    assert list(neck.in_features) == list(neck.input_shapes)
    strides = [8, 16, 16] if "_dc5_" in name else [8, 16, 32]
    assert [shapes[key].stride for key in neck.in_features] == [
        stride for stride in strides if stride not in WITHOUT_STRIDE.get(name, ())
    ]
    channels = [shapes[key].channels for key in neck.in_features]
    assert [shape.channels for shape in neck.input_shapes.values()] == channels
    assert [conv.in_channels for conv in model.neck.convs] == channels
    check_weights_and_images(cfg, name)
