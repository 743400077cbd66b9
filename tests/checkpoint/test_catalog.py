"""The catalogue: its rows against torchvision's and timm's own metadata, names to weights, files to what is known."""

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torchvision.models import ResNet50_Weights, get_model_weights

from detrex_backbones.checkpoint.fetch import Recipe, cache_path, find_known, find_weight, list_weights
from detrex_backbones.checkpoint.fetch.catalog import lookup, timm_weights
from detrex_backbones.checkpoint.fetch.catalog.gluon import TIMM_NAMES
from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.errors import ArgumentError, CheckpointFileError

RGB = {
    "pixel_mean": [123.675, 116.28, 103.53],
    "pixel_std": [58.395, 57.12, 57.375],
    "input_format": "RGB",
}
MSRA = {"pixel_mean": [103.53, 116.28, 123.675], "pixel_std": [1.0, 1.0, 1.0], "input_format": "BGR"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DETREX_BACKBONES_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# --- the rows

# Accuracies as torchvision's documentation has them.
TORCHVISION = {
    "resnet18-v1": ("f37072fd", 69.758),
    "resnet34-v1": ("b627a593", 73.314),
    "resnet50-v1": ("0676ba61", 76.130),
    "resnet50-v2": ("11ad3fa6", 80.858),
    "resnet101-v1": ("63fe2227", 77.374),
    "resnet101-v2": ("cd907fc2", 81.886),
    "resnet152-v1": ("394f9c45", 78.312),
    "resnet152-v2": ("f82ba261", 82.284),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_resnets(name):
    sha256, top1 = TORCHVISION[name]
    weight = find_weight(f"torchvision://{name}")
    network = name.partition("-")[0]
    assert (weight.hash, weight.top1) == (f"sha256:{sha256}", top1)
    assert weight.url == f"https://download.pytorch.org/models/{network}-{sha256}.pth"
    with torch.device("meta"):
        parameters = sum(value.numel() for value in getattr(torchvision.models, network)().parameters())
    assert weight.parameters == parameters
    assert weight.recipe == Recipe(232 if name.endswith("v2") else 256, 224, "bilinear")
    stride = {} if network in ("resnet18", "resnet34") else {"stride_in_1x1": False}
    assert weight.traits == {**RGB, **stride, "norm_eps": 1e-5}
    assert weight.config == f"resnet/{network}.py"


@pytest.mark.parametrize(
    "name", ["resnet50-v2", "resnet50", "ResNet50_Weights.IMAGENET1K_V2", "ResNet50_Weights.DEFAULT"]
)
def test_torchvision_takes_its_own_names_and_short_ones(name):
    weight = find_weight(f"torchvision://{name}")
    assert weight.url == ResNet50_Weights.IMAGENET1K_V2.url
    assert weight.name == "torchvision://resnet50-v2"


def test_every_weight_of_torchvision_has_a_name():
    urls = {weight.url for weight in list_weights("torchvision://*")}
    networks = torchvision.models.list_models(exclude="quantized_*")
    theirs = {member.url for network in networks for member in get_model_weights(network)}
    assert theirs <= urls
    weight = find_weight("torchvision://vit_b_16-swag_e2e_v1")
    assert (weight.recipe, weight.top1) == (Recipe(384, 384, "bicubic"), 85.304)
    assert find_weight("torchvision://vgg16-features").traits["pixel_std"] == [1.0, 1.0, 1.0]
    assert find_weight("torchvision://ssdlite320_mobilenet_v3_large-coco_v1").traits == {}
    assert find_weight("torchvision://fasterrcnn_resnet50_fpn-coco_v1").traits["norm_eps"] == 0


def test_gluon_agrees_with_timm_in_every_row():
    weights = list_weights("gluon://*")
    assert len(weights) == len(TIMM_NAMES) == 21
    for timm_name, name in TIMM_NAMES.items():
        weight = find_weight(f"gluon://{name}")
        cfg = timm.get_pretrained_cfg(f"{timm_name}.gluon_in1k")
        assert weight.url == cfg.url
        assert weight.file.endswith(f"-{weight.hash.removeprefix('sha256:')}.pth")
        assert weight.recipe == find_weight(f"timm://{timm_name}.gluon_in1k").recipe == Recipe(256, 224, "bicubic")
        assert weight.traits.items() >= RGB.items()
        with torch.device("meta"):
            parameters = sum(value.numel() for value in timm.create_model(timm_name).parameters())
        assert weight.parameters == parameters
    by_name = {weight.name.removeprefix("gluon://"): weight.top1 for weight in weights}
    assert (by_name["resnet18_v1b"], by_name["resnet50_v1d"], by_name["senet154"]) == (70.83, 79.074, 81.224)


def test_pycls_is_bgr_and_has_the_sizes_of_timms_regnets():
    assert len(list_weights("pycls://RegNet*")) == 24
    assert len(list_weights("pycls://ResNe*")) == 6
    weight = find_weight("pycls://RegNetX-3.2GF")
    assert weight.url == ("https://dl.fbaipublicfiles.com/pycls/dds_baselines/160906139/RegNetX-3.2GF_dds_8gpu.pyth")
    assert (weight.hash, weight.top1) == ("", 78.264)
    assert weight.traits["input_format"] == "BGR"
    assert weight.traits["pixel_std"] == [57.375, 57.12, 58.395]
    for name, theirs in {"RegNetX-3.2GF": "regnetx_032", "RegNetY-400MF": "regnety_004"}.items():
        parameters = sum(value.numel() for value in timm.create_model(theirs).parameters())
        assert find_weight(f"pycls://{name}").parameters == parameters


@pytest.mark.parametrize(
    ("name", "file", "traits"),
    [
        ("detectron2/resnet50_caffe", "resnet50_msra-5891d200", {**MSRA, "stride_in_1x1": True}),
        ("detectron2/resnet101_caffe", "resnet101_msra-6cc46731", {**MSRA, "stride_in_1x1": True}),
        ("detectron/resnet50_caffe", "resnet50_caffe-788b5fa3", {"input_format": "BGR", "stride_in_1x1": True}),
        ("detectron/resnet101_caffe", "resnet101_caffe-3ad79236", {"input_format": "BGR", "stride_in_1x1": True}),
        (
            "detectron2/resnext101_32x8d",
            "resnext101_32x8d-1516f1aa",
            {"input_format": "BGR", "pixel_std": [57.375, 57.12, 58.395], "stride_in_1x1": False},
        ),
        ("resnet50_v1c", "resnet50_v1c-2cccc1ad", {**RGB, "stride_in_1x1": False}),
    ],
)
def test_openmmlab(name, file, traits):
    weight = find_weight(f"open-mmlab://{name}")
    assert weight.url == f"https://download.openmmlab.com/pretrain/third_party/{file}.pth"
    assert weight.hash == f"sha256:{file[-8:]}"
    assert weight.traits.items() >= traits.items()


def test_a_mean_that_sources_disagree_about_is_no_trait():
    assert "pixel_mean" not in find_weight("open-mmlab://detectron/resnet50_caffe").traits
    assert "pixel_mean" not in find_weight("catalog://ImageNetPretrained/MSRA/R-50").traits


def test_detectron2():
    weight = find_weight("detectron2://ImageNetPretrained/MSRA/R-50.pkl")
    assert weight.url == "https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MSRA/R-50.pkl"
    assert weight.traits == {**MSRA, "stride_in_1x1": True, "norm_eps": 1e-5}
    assert weight.licence == "CC BY-SA 3.0"
    detector = find_weight("detectron2://COCO-Detection/faster_rcnn_R_50_DC5_3x")
    path = "COCO-Detection/faster_rcnn_R_50_DC5_3x/137849425/model_final_68d202.pkl"
    assert (detector.hash, detector.traits["dilation_style"]) == ("md5:68d202", "detectron2")
    assert find_weight(f"detectron2://{path}") == detector
    resnext = find_weight("detectron2://COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x")
    assert (resnext.traits["stride_in_1x1"], resnext.traits["pixel_std"][0]) == (False, 57.375)
    # A file that isn't listed is taken at its word; what it assumes is not known.
    other = find_weight("detectron2://new/model_final_abcdef.pkl?matching_heuristics=True")
    assert (other.url, other.hash, other.traits) == (
        "https://dl.fbaipublicfiles.com/detectron2/new/model_final_abcdef.pkl",
        "md5:abcdef",
        {},
    )


def test_detr_and_moco():
    assert find_weight("detr://r50-dc5").traits["dilation_style"] == "torchvision"
    assert "dilation_style" not in find_weight("detr://r50").traits
    assert find_weight("moco://v2_800ep").hash == "md5:a04e12f8"
    assert find_weight("moco://v2_800ep").licence == "CC BY-NC 4.0"


def test_timm():
    weight = find_weight("timm://resnet50d.gluon_in1k")
    assert (weight.hub, weight.config) == ("timm/resnet50d.gluon_in1k", "gluon/resnet50_v1d.py")
    assert weight.recipe == Recipe(256, 224, "bicubic")
    assert find_weight("timm://resnet50d").name == f"timm://resnet50d.{timm.get_pretrained_cfg('resnet50d').tag}"
    beit = find_weight("timm://beit_base_patch16_224.in22k_ft_in22k_in1k")
    assert beit.traits["pixel_mean"] == beit.traits["pixel_std"] == [127.5, 127.5, 127.5]
    assert "model.backbone.model_name=beit_base_patch16_224" in beit.overrides
    assert len(list_weights("timm://*")) == len(timm.list_pretrained())


def test_accuracies_of_timm():
    """Of the same files, measured by others, with the same crop."""
    for depth in (18, 34, 50, 101, 152):
        ours, theirs = find_weight(f"torchvision://resnet{depth}-v1"), find_weight(f"timm://resnet{depth}.tv_in1k")
        assert abs(ours.top1 - theirs.top1) < 0.05 and abs(ours.top5 - theirs.top5) < 0.05
    for timm_name, name in TIMM_NAMES.items():
        ours, theirs = find_weight(f"gluon://{name}"), find_weight(f"timm://{timm_name}.gluon_in1k")
        assert abs(ours.top1 - theirs.top1) < 0.05 and abs(ours.top5 - theirs.top5) < 0.05
    assert find_weight("timm://vit_small_patch16_dinov3").top1 is None  # no classifier


def test_the_table_of_timm_is_sorted_and_of_names_that_timm_has():
    table = Path(timm_weights.__file__).with_name("timm_top.csv").read_text().splitlines()[1:]
    names = [line.partition(",")[0] for line in table]
    assert names == sorted(set(names)) and len(names) > 1000
    # A later timm may drop a name; a mistake would be many.
    assert len(set(names) - set(timm.list_pretrained())) < 50


def test_rows_are_well_formed():
    weights = list_weights("")
    names = [weight.name for weight in weights]
    assert len(names) == len(set(names))
    for weight in weights:
        assert weight.url.startswith("https://"), weight.name
        algorithm, _, digest = weight.hash.partition(":")
        assert algorithm in ("", "sha256", "md5"), weight.name
        assert set(digest) <= set("0123456789abcdef"), weight.name
        assert digest in weight.file or weight.name.startswith("moco://"), weight.name
        least = 30 if weight.name.startswith("timm://test_") else 50  # timm's own, for its tests
        assert weight.top1 is None or least < weight.top1 < 95, weight.name
        if weight.name.partition("://")[0] in ("gluon", "torchvision", "pycls", "open-mmlab", "mmcls", "detectron2"):
            assert find_weight(weight.name) == weight
    with pytest.raises(dataclasses.FrozenInstanceError):
        weights[0].top1 = 100.0


# --- names that are wrong


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("torchvision://resnet50-v3", "Did you mean 'resnet50-v2'"),
        ("torchvision://ResNet50_Weights.V2", "torchvision has no weights called 'ResNet50_Weights.V2'"),
        ("gluon://resnet50v1d", "Did you mean 'resnet50_v1d'"),
        ("timm://resnet50d.gluon", "Did you mean 'resnet50d.gluon_in1k'"),
        ("pycls://RegNetX-3GF", "RegNetX-3.2GF"),
        ("open-mmlab://detectron2/resnet50", "detectron2/resnet50_caffe"),
        ("detectron2://ImageNetPretrained/MSRA/R-50", "ImageNetPretrained/MSRA/R-50.pkl"),
        ("torchvison://resnet50-v2", "Did you mean 'torchvision'"),
        ("ftp://host/net.pth", "unknown scheme"),
        ("hf-hub:resnet-50", "hf-hub:org/name"),
        ("hf-hub:../name", "hf-hub:org/name"),
        ("hf-hub:org/..:x.pth", "without '..'"),
        ("hf-hub:org/name@../v2", "without '..'"),
        ("hf-hub:org/name:../../../x.pth", "without '..'"),
        ("hf-hub:org/name:a/..\\x.pth", "without '..'"),
        ("hf-hub:org/name:/etc/x.pth", "without '..'"),
        ("hf-hub:org/name:x\x1b[2J.pth", "\\x1b[2J.pth"),
        ("https://a.org/../x.pth", "contains '..'"),
        ("file://host/net.pth", "another machine"),
    ],
)
def test_unknown_names_are_errors_with_the_closest(name, said):
    with pytest.raises(CheckpointFileError) as caught:
        read_checkpoint(name)
    assert said in str(caught.value)
    if "://" in name and name.partition("://")[0] + "://" in lookup.SOURCES:
        with pytest.raises(ArgumentError):
            find_weight(name)
        assert find_known(name) is None


# --- files that are known


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/models/resnet50-0676ba61.pth", "torchvision://resnet50-v1"),
        ("resnet50-0676ba61 (1).pth", "torchvision://resnet50-v1"),
        ("my_resnet50-0676ba61.safetensors", "torchvision://resnet50-v1"),
        ("resnet50-19c8e357.pth", "https://download.pytorch.org/models/resnet50-19c8e357.pth"),
        ("gluon_resnet50_v1d-818a1b1b.pth", "gluon://resnet50_v1d"),
        ("resnet50_a1_0-14fe96d1.pth", "timm://resnet50.a1_in1k"),
        ("hub/models--timm--resnet50d.gluon_in1k/snapshots/0123/model.safetensors", "timm://resnet50d.gluon_in1k"),
        ("hf-hub:timm/resnet50d.gluon_in1k", "timm://resnet50d.gluon_in1k"),
        ("hf-hub:timm/resnet50d.gluon_in1k@main:model.safetensors", "timm://resnet50d.gluon_in1k"),
        ("resnet50_msra-5891d200.pth", "open-mmlab://detectron2/resnet50_caffe"),
        ("resnet50_8xb32_in1k_20210831-ea4938fc.pth", "mmcls://resnet50"),
        ("detr-r50-dc5-f0fb7ef5.pth", "detr://r50-dc5"),
        ("moco_v2_800ep_pretrain.pth.tar", "moco://v2_800ep"),
        ("RegNetX-3.2GF_dds_8gpu.pyth", "pycls://RegNetX-3.2GF"),
        ("model_final_280758.pkl", "detectron2://COCO-Detection/faster_rcnn_R_50_FPN_3x"),
        ("torchvision://resnet50-v2", "torchvision://resnet50-v2"),
        ("https://download.pytorch.org/models/resnet50-11ad3fa6.pth", "torchvision://resnet50-v2"),
        ("file:///models/resnet50-11ad3fa6.pth", "torchvision://resnet50-v2"),
        # The same name in three folders: only the folders tell.
        ("x/detectron2/ImageNetPretrained/MSRA/R-50.pkl", "detectron2://ImageNetPretrained/MSRA/R-50.pkl"),
        (
            "x/detectron2/ImageNetPretrained/torchvision/R-50.pkl",
            "detectron2://ImageNetPretrained/torchvision/R-50.pkl",
        ),
        ("x/detectron/ImageNetPretrained/MSRA/R-50.pkl", "catalog://ImageNetPretrained/MSRA/R-50"),
        ("ImageNetPretrained/MSRA/R-50.pkl", None),
        ("R-50.pkl", None),
        ("checkpoint_280758.pth", None),  # an iteration, not an md5
        ("my_model-deadbeef.pth", None),
        ("model.safetensors", None),
        ("", None),
    ],
)
def test_files_are_known_by_hash_name_or_folders(path, name):
    weight = find_known(path)
    assert (weight and weight.name) == name


def test_every_downloaded_file_is_known_again():
    for weight in list_weights("", tuple(scheme for scheme in lookup.SOURCES if scheme != "timm://")):
        known = find_known(cache_path(weight.url))
        assert known is not None, weight.name
        assert known.url == weight.url
        assert known.traits == weight.traits


def test_a_renamed_file_is_known_by_its_content_if_asked(tmp_path, monkeypatch):
    path = tmp_path / "renamed.pth"
    path.write_bytes(b"content")
    row = dataclasses.replace(
        find_weight("gluon://resnet50_v1d"), hash=f"sha256:{hashlib.sha256(b'content').hexdigest()[:8]}"
    )
    monkeypatch.setattr(lookup, "_tables", lambda: (row,))
    assert find_known(path) is None
    assert find_known(path, content=True) == row
    path.write_bytes(b"other content")
    assert find_known(path, content=True) is None
    assert find_known(tmp_path / "missing.pth", content=True) is None


def test_the_tables_cost_no_import():
    code = (
        "import sys, detrex_backbones.checkpoint.fetch as c; c.find_weight('gluon://resnet50_v1d'); "
        "c.find_known('R-50.pkl'); print([m for m in ('torch', 'torchvision', 'timm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
