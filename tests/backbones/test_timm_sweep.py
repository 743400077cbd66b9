"""At least 25 families of timm models, with every kind of wrapper among them: the sweep's checks, and meta builds."""

import pytest
import timm
import torch

from benchmarks.timm_sweep import Row, check_model, check_module, smallest
from benchmarks.timm_table import markdown
from detrex_backbones import TimmBackbone

FAMILIES = [
    "resnet14t",
    "resnest14d",
    "skresnet18",
    "legacy_seresnet18",
    "resnetv2_18",
    "regnetx_002",
    "convnext_atto",
    "mobilenetv2_035",
    "mobilenetv3_small_050",
    "mobilevit_xxs",
    "hrnet_w18_small",
    "cs3darknet_focus_s",
    "dla46x_c",
    "pvt_v2_b0",
    "ese_vovnet19b_slim_dw",
    "ghostnet_050",
    "edgenext_xx_small",
    "starnet_s050",
    "hgnetv2_b0",
    "fastvit_t8",
    "efficientvit_b0",
    "poolformer_s12",
    "cspnext_tiny",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "mambaout_femto",
]
WRAPPED = [
    ("resnet14t", "dict", "FeatureDictNet"),
    ("resnet14t", "hook", "FeatureHookNet"),
    ("resnet14t", "fx", "FeatureGraphNet"),
    ("convnext_atto", "getter", "FeatureGetterNet"),
]


def check(name: str, **kwargs) -> Row:
    with torch.device("meta"):
        shapes = TimmBackbone(name, out_indices=None, norm_layer="FrozenBN", **kwargs).output_shape()
    row = Row("", name)
    check_model(name, row, **kwargs)
    assert row.result == "works"
    assert row.maps == "/".join(str(spec.channels) for spec in shapes.values())
    assert row.strides == "/".join(str(spec.stride) for spec in shapes.values())
    return row


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_built_loaded_frozen_and_run_at_odd_sizes(name):
    check(name)


@pytest.mark.parametrize(("name", "feature_cls", "wrapper"), WRAPPED)
def test_so_is_every_kind_of_wrapper(name, feature_cls, wrapper):
    row = Row("", name)
    check_model(name, row, feature_cls=feature_cls)
    assert (row.result, row.wrapper) == ("works", wrapper)


@pytest.mark.parametrize(
    ("name", "divisibility"),
    [
        ("resnet14t", 0),
        ("convnext_atto", 32),
        ("hrnet_w18_small", 32),
        ("swin_tiny_patch4_window7_224", 4),
        ("vit_tiny_patch16_224", 0),
    ],
)
def test_the_padding_that_a_family_needs_is_measured(name, divisibility):
    with torch.device("meta"):
        assert TimmBackbone(name, out_indices=None).size_divisibility == divisibility


def test_the_sweep_says_what_it_skips_and_what_is_wrong():
    rows = [check_module("starnet"), check_module("deepseek_vit")]
    assert [row.works for row in rows] == [True, False]
    assert "not tried: its smallest model has" in rows[1].result
    text = markdown(rows)
    assert "**1 of 2 modules work: 1 at any size" in text
    assert f"timm {timm.__version__}" in text
    assert smallest("starnet")[0] == "starnet_s050"
