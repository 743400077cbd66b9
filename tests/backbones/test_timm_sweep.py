"""At least 25 families of timm models, with every kind of wrapper among them: the sweep's checks, and meta builds."""

import pytest
import timm
import torch

from benchmarks.timm_check import Row, check_model, row_of
from benchmarks.timm_families import families, parameters, smallest
from benchmarks.timm_table import markdown, totals
from detrex_backbones import TimmBackbone
from tests.old_libraries import skip_without_file, skip_without_maps

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
    skip_without_maps(name)
    skip_without_file(name)
    with torch.device("meta"):
        shapes = TimmBackbone(name, out_indices=None, norm_layer="FrozenBN", **kwargs).output_shape()
    row = Row("", name)
    check_model(name, row, **kwargs)
    assert (row.result, row.timm) == ("works", "the same maps")
    assert row.maps == "/".join(str(spec.channels) for spec in shapes.values())
    assert row.strides == "/".join(str(spec.stride) for spec in shapes.values())
    return row


@pytest.mark.few(1)
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
        ("lambda_resnet26t", 32),
        ("swin_tiny_patch4_window7_224", 4),
        ("vit_tiny_patch16_224", 0),
    ],
)
def test_the_padding_that_a_family_needs_is_measured(name, divisibility):
    with torch.device("meta"):
        assert TimmBackbone(name, out_indices=None).size_divisibility == divisibility


def test_every_model_has_a_family_and_every_module_one():
    names = [name for found in families().values() for name in found]
    assert sorted(names) == sorted(name for name in timm.list_models() if not name.startswith("test_"))
    assert {module for module, _ in families()} == set(timm.list_modules())
    kinds = {family for module, family in families() if module == "efficientnet"}
    assert {"efficientnet", "efficientnetv2", "mobilenetv2", "mnasnet", "mixnet", "fbnetc", "tinynet"} <= kinds


@pytest.mark.parametrize("family", [("starnet", "starnet"), ("rexnet", "rexnet"), ("senet", "seresnext")])
def test_a_familys_smallest_has_the_fewest_parameters(family):
    counts = {name: parameters(name) for name in families()[family]}
    name, count = smallest(family)
    with torch.device("meta"):
        assert count == sum(parameter.numel() for parameter in timm.create_model(name).parameters())
    assert count == counts[name] == min(counts.values())


def test_the_sweep_tells_ways_of_working_from_failing():
    models = {
        "starnet": "starnet_s050",
        "inception_v3": "inception_v3",
        "crossvit": "crossvit_tiny_240",
    }
    rows = {module: row_of(module, module, name, 1) for module, name in models.items()}
    assert [(row.reach, row.smaller) for row in rows.values()] == [
        ("any", False),
        ("any", True),
        ("fails", False),
    ]
    rows["bound"] = Row("bound", timm="224x224 alone", reach="made", result="made for any img_size=(H, W)")
    assert rows["inception_v3"].result.endswith("is (1, 64, 142, 47), not (1, 64, 145, 50)")
    text = markdown(list(rows.values()))
    assert "3 of 4 families work, and all families of 3 of the 4 modules" in totals(list(rows.values()))
    assert "timm itself can run 3 at other sizes than their default; 2 of these take any size here." in totals(
        list(rows.values())
    )
    assert f"timm {timm.__version__}" in text
    for title in ("Any size: 1", "Maps smaller than size / stride: 1", "Built for one image size: 1", "Not usable: 1"):
        assert f"## {title}\n" in text
