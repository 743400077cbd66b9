"""`detrex-backbones weights`: what it lists, and that each config it names is one that fits the weight."""

import json

import pytest

from detrex_backbones.checkpoint.fetch import list_weights
from detrex_backbones.checkpoint.fetch.catalog import lookup
from detrex_backbones.cli import main
from detrex_backbones.cli.weights import overrides_of
from detrex_backbones.config import LazyConfig
from detrex_backbones.zoo import get_config, list_configs

OWN = tuple(scheme for scheme in lookup.SOURCES if scheme != "timm://")


def run(capsys, *argv):
    status = main(["weights", *argv])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def wide(capsys, monkeypatch, *argv):
    """Lines of a terminal that is wide enough for every row, without the table's rule."""
    monkeypatch.setenv("COLUMNS", "200")
    status, out, _ = run(capsys, *argv)
    assert status == 0
    return [line.split() for line in out.splitlines()]


def test_without_a_pattern_all_but_timms_are_listed(capsys, monkeypatch):
    lines = wide(capsys, monkeypatch)
    first = {line[0] for line in lines if line}
    for name in ("torchvision://resnet50-v2", "gluon://senet154", "pycls://RegNetX-3.2GF", "open-mmlab://resnet50_v1c"):
        assert name in first
    assert not any(name.startswith("timm://") for name in first)
    assert any("detrex-backbones weights 'timm://*'" in " ".join(line) for line in lines)


@pytest.mark.parametrize("pattern", ["", "*"])
def test_it_fits_80_columns(capsys, pattern):
    """But for names that are longer by themselves: a terminal wraps these, and they are copied whole."""
    _, out, _ = run(capsys, pattern)
    assert max(len(line) for line in out.splitlines() if " " in line) <= 80


@pytest.mark.parametrize("columns", ["60", "80", "100"])
def test_names_are_whole_to_be_copied(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    _, out, _ = run(capsys, "detrex")
    words = {line.split()[0] for line in out.splitlines() if line.strip()}
    assert {weight.name for weight in list_weights("detrex*")} <= words
    assert "resnet/resnet101_dc5_torchvision" in out


def test_a_row_has_accuracies_parameters_images_and_backbone(capsys, monkeypatch):
    lines = wide(capsys, monkeypatch, "torchvision://resnet50-v2")
    assert " ".join(lines[0]) == "name top-1 top-5 params M images backbone="
    row = "torchvision://resnet50-v2 80.86 95.43 25.6 RGB imagenet resnet/resnet50"
    assert row.split() in lines


def test_overrides_stand_below_once_for_all_rows_that_need_them(capsys, monkeypatch):
    lines = wide(capsys, monkeypatch, "open-mmlab://detectron2/resnet*_caffe")
    for depth in (50, 101):
        name = f"open-mmlab://detectron2/resnet{depth}_caffe"
        assert f"{name} BGR msra resnet/resnet{depth} [1]".split() in lines
    start = lines.index(["[1]", "with"])
    assert [" ".join(line) for line in lines[start + 1 : start + 5]] == [
        "model.backbone.stages.stride_in_1x1=True",
        "model.input_format=BGR",
        "model.pixel_mean=[103.53,116.28,123.675]",
        "model.pixel_std=[1,1,1]",
    ]
    assert ["BGR", "msra", "103.53", "116.28", "123.675", "1", "1", "1", "0-255", "open-mmlab"] in lines


def test_timms_networks_are_backbones_by_their_names(capsys, monkeypatch):
    lines = wide(capsys, monkeypatch, "timm://convnext_tiny.fb_in1k")
    row = "timm://convnext_tiny.fb_in1k 82.07 95.85 RGB imagenet timm/convnext_tiny.fb_in1k"
    assert row.split() in lines
    assert not any("model_name" in word for line in lines for word in line)
    _, out, _ = run(capsys, "timm://convnext_tiny.fb_in1k", "--json")
    assert json.loads(out)[0]["backbone"] == "timm/convnext_tiny.fb_in1k" and not json.loads(out)[0]["overrides"]


def test_sorted_and_filtered(capsys):
    def rows(*argv):
        return json.loads(run(capsys, *argv, "--json")[1])

    tops = [row["top5"] for row in rows("gluon", "--sort", "top5")]
    assert len(tops) >= 21 and tops == sorted(tops, reverse=True)
    small = rows("torchvision://res*", "--min-top1", "80", "--max-params", "30")
    assert small and all(row["top1"] >= 80 and row["parameters"] <= 30e6 for row in small)
    status, _, err = run(capsys, "gluon", "--min-top1", "99")
    assert status == 1 and "passes the filters" in err
    status, _, err = run(capsys, "gluon", "--sort", "top-1")
    assert status == 2 and "Did you mean 'top1'" in err


def test_detectors_of_detrex_are_listed(capsys, monkeypatch):
    lines = wide(capsys, monkeypatch, "detrex")
    assert ["detrex://dino_swin_large_384_4scale_36ep", "RGB", "imagenet", "swin/large_384", "[1]"] in lines
    assert ["model.backbone.out_indices=[1,2,3]"] in lines


def test_patterns(capsys):
    def names(pattern):
        _, out, _ = run(capsys, pattern, "--json")
        return [row["name"] for row in json.loads(out)]

    assert len(names("gluon")) >= 21
    assert names("resnet50_v1?") == [f"gluon://resnet50_v1{letter}" for letter in "bcsd"] + [
        "open-mmlab://resnet50_v1c",
        "mmcls://resnet50_v1d",
    ]
    assert all(name.startswith("timm://resnet50d.") for name in names("timm://resnet50d.*"))


def test_json_has_all_that_is_known(capsys):
    _, out, _ = run(capsys, "gluon://resnet50_v1d", "--json")
    (row,) = json.loads(out)
    assert row["hash"] == "sha256:818a1b1b"
    assert row["top1"] == 79.074
    assert row["recipe"] == {"resize": 256, "crop": 224, "interpolation": "bicubic", "mode": "center"}
    assert row["preprocessing"]["pixel_mean"] == [123.675, 116.28, 103.53]
    assert row["traits"]["stride_in_1x1"] is False


def test_nothing_found_is_an_error_with_the_closest(capsys):
    status, out, err = run(capsys, "resnett50")
    assert (status, out) == (1, "")
    assert "no weights match 'resnett50'" in err
    assert "resnet50" in err
    assert "Did you mean 'resnet50_v1d'" in run(capsys, "gluon://resnet50v1d")[2]


@pytest.mark.slow
def test_every_config_exists_and_with_its_overrides_fits_the_weight():
    configs = list_configs()
    for weight in (weight for weight in list_weights("", OWN) if weight.config):
        assert weight.config in configs, weight.name
        if weight.config.startswith("detectors/"):  # they normalise images as torchvision's class does
            assert get_config(weight.config).train.init_checkpoint == weight.name
            continue
        model = LazyConfig.apply_overrides(get_config(weight.config), overrides_of(weight)).model
        pixels = weight.preprocessing
        assert model.input_format == pixels.input_format, weight.name
        assert list(model.pixel_mean) == pytest.approx(pixels.pixel_mean, abs=1e-3), weight.name
        assert list(model.pixel_std) == pytest.approx(pixels.pixel_std, abs=1e-3), weight.name
        if "stages" not in model.backbone:  # RegNet, Darknet-53, VGG-16: nothing there to choose
            assert not (weight.stride_in_1x1 or weight.dilation_style), weight.name
            continue
        stages = model.backbone.stages
        assert stages.get("stride_in_1x1", False) is bool(weight.stride_in_1x1), weight.name
        if weight.dilation_style:
            assert (stages.res5_dilation, stages.dilation_style) == (2, weight.dilation_style), weight.name
        else:
            assert stages.get("res5_dilation", 1) == 1, weight.name


@pytest.mark.parametrize("command", ["weights", "evaluate"])
def test_help_has_examples_and_fits_80_columns(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"examples:\n  detrex-backbones {command}" in out
    assert max(map(len, out.splitlines())) <= 80
