"""Every ready config of a backbone as an override of a detector's config and of a plain FeatureExtractor's."""

import pytest
import torch

from detrex_backbones import LazyConfig, get_config, instantiate
from detrex_backbones.checkpoint.fetch import find_known
from detrex_backbones.config.nodes import to_plain
from detrex_backbones.zoo.backbone_names import weights_of
from detrex_backbones.zoo.listing import ready_backbones
from tests.swap_models import dino

PIXELS = ("pixel_mean", "pixel_std", "input_format")


def swapped(cfg, name):
    """The config after the override, and its model, without values."""
    cfg = LazyConfig.apply_overrides(cfg, [f"backbone={name}"])
    with torch.device("meta"):
        return cfg, instantiate(cfg.model)


def check_weights_and_images(cfg, name):
    """The best known weights of the network, or none, and the images of these."""
    known = weights_of(name)
    assert cfg.train.init_checkpoint == (known[0].name if known else "")
    own = get_config(name).model
    images = find_known(known[0].name).traits if known else {key: to_plain(own[key]) for key in PIXELS}
    assert {key: to_plain(cfg.model[key]) for key in PIXELS} == {key: images[key] for key in PIXELS}


@pytest.mark.parametrize("name", ready_backbones())
def test_in_a_feature_extractor(name):
    start = "resnet/resnet50" if name != "resnet/resnet50" else "gluon/resnet101_v1b"
    cfg, model = swapped(get_config(start), name)
    own = {key: (shape.channels, shape.stride) for key, shape in built(get_config(name)).output_shape().items()}
    maps = {key: (shape.channels, shape.stride) for key, shape in model.backbone.output_shape().items()}
    assert maps.items() <= own.items() and maps
    check_weights_and_images(cfg, name)


def built(cfg):
    with torch.device("meta"):
        return instantiate(cfg.model.backbone)


@pytest.mark.parametrize("name", ready_backbones())
def test_in_a_detector(name):
    cfg, model = swapped(dino(), name)
    neck, shapes = cfg.model.neck, model.backbone.output_shape()
    assert list(neck.in_features) == list(neck.input_shapes)
    for key, shape in neck.input_shapes.items():
        assert shape.channels == shapes[key].channels
    strides = [shapes[key].stride for key in neck.in_features]
    assert strides == ([8, 16, 16] if "_dc5_" in name else [8, 16, 32])
    assert [conv.in_channels for conv in model.neck.convs] == [shapes[key].channels for key in neck.in_features]
    check_weights_and_images(cfg, name)
