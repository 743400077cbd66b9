"""The report: for people in 80 columns, for programs as JSON."""

import json

import pytest
import torch

from detrex_backbones import load_checkpoint
from detrex_backbones.checkpoint.entry import Status
from detrex_backbones.checkpoint.report import LoadReport, describe
from detrex_backbones.text import shorten
from tests.checkpoint.nets import empty, weights
from tests.checkpoint.reports import left_over, loaded, mismatched

RULE = "x: in the scope"


def full_report(entries=(), **changes):
    """A report with something of everything."""
    found = [
        loaded("stem.weight", "conv1.weight", (2, 3)),
        loaded("res2.weight", "layer1.weight", (4,), RULE, "a -> b"),
        loaded("res3.weight", "layer2.weight", (), RULE, "a -> b"),
        mismatched("res5.weight", "layer4.weight", (1, 2), (2, 1)),
        *left_over({"fc.weight": "head", "fc.bias": "head", **{str(i): "other" for i in range(3)}}),
        *left_over({"layer3.9.weight": "no place"}, Status.OTHER_ARCHITECTURE),
    ]
    values = {
        "path": "weights.pth",
        "format": "torch",
        "container": "model",
        "source": "torchvision",
        "prefix": "module.",
        "scope": "backbone",
        "entries": [*found, *entries],
        "missing": [f"res4.{index}.weight" for index in range(11)],
        "outside": ["head.weight", "head.num_batches_tracked", "pixel_mean"],
        "before_maps": ["neck.0.weight"],
        "ambiguous": "it fits twice",
        "not_finite": {"stem.weight": 2},
    }
    return LoadReport(**{**values, **changes})


def words(report):
    """The text with its line breaks and indents taken out."""
    return " ".join(str(report).split())


def test_counts():
    report = full_report()
    assert report.expected == 3 + 11 + 1
    assert report.coverage == 3 / 15
    assert "loaded 3 of 15 of model.backbone; 1 of 16 of the model keeps random values: head (1)" in words(report)
    assert "of the file 3 of 5 tensors, 11 numbers" in words(report)
    assert report.file_coverage == 3 / 5
    assert LoadReport("weights.pth").coverage == 0


def test_the_text_says_everything():
    text = words(full_report())
    for part in (
        "checkpoint weights.pth (torch, under 'model')",
        "names torchvision, prefix 'module.' removed",
        "WARNING 1 tensor between the backbone and its maps, neck (1), keeps random values",
        "cast 2 a -> b",
        "missing 11: res4.0.weight, res4.1.weight,",
        "res4.7.weight and 3 more",
        "other shape 1: res5.weight (1, 2) in the model, (2, 1) in the file",
        "left over head: 2 (fc.weight, fc.bias), other: 3",
        "AMBIGUOUS it fits twice",
        "WARNING NaN or infinite values in stem.weight (2 numbers)",
    ):
        assert part in text


def test_the_text_says_nothing_of_what_there_is_not():
    report = LoadReport("weights.pth", "torch", source="as stored", entries=[loaded("a", "a", (2,))])
    assert str(report).splitlines() == [
        "checkpoint  weights.pth (torch)",
        "names       as stored",
        "loaded      1 of 1 of the model",
        "of the file 1 of 1 tensors, 2 numbers",
    ]


LONG = "x" * 300


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"path": f"/{LONG}/weights.pth"},
        {"path": "/" + "folder with spaces/" * 20},
        {"path": "/" + "folder-with-dashes/" * 20},
        {"missing": [f"{LONG}.{index}" for index in range(20)]},
        {"entries": [mismatched(LONG, LONG, (1,) * 50, (2,) * 50)]},
        {"entries": left_over({LONG: LONG})},
        {"not_finite": {LONG: 10**9}},
        {"ambiguous": LONG},
        {"source": LONG, "prefix": LONG, "scope": LONG, "container": LONG, "format": LONG},
        {"missing": ["line\nbreak", "tab\tstop"]},
    ],
)
def test_the_text_fits_80_columns(changes):
    lines = str(full_report(**changes)).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line[:11].strip() or line.startswith(" " * 12) for line in lines)


def test_the_dict_is_json_and_complete():
    report = full_report()
    found = json.loads(json.dumps(report.to_dict()))
    assert found == report.to_dict()
    assert set(found) == set(vars(report)) - {"entries"} | {
        *("coverage", "file_coverage", "loaded", "mismatched", "left_over", "unplaced"),
    }
    assert found["loaded"][1] == {
        "model_key": "res2.weight",
        "checkpoint_key": "layer1.weight",
        "shape": [4],
        "rule": "x: in the scope",
        "cast": "a -> b",
        "adapted": "",
    }
    assert found["mismatched"][0]["checkpoint_shape"] == [2, 1]
    assert len(found["missing"]) == 11


def test_the_dict_is_a_copy():
    report = full_report()
    report.to_dict()["missing"].clear()
    report.to_dict()["left_over"].clear()
    assert len(report.missing) == 11
    assert len(report.left_over) == 6


def test_the_report_of_a_real_load(tmp_path):
    path = tmp_path / ("long name " * 15 + ".pth")
    torch.save({"model": weights()}, path)
    report = load_checkpoint(empty(), path)
    assert json.loads(json.dumps(report.to_dict()))["path"] == str(path)
    assert max(map(len, str(report).splitlines())) <= 80
    text = words(report)
    assert "loaded 100 of 100 of the model of the file 100 of 100 tensors, 11,186,112 numbers" in text
    assert "left over batch counter: 20, head: 2 (fc.weight, fc.bias)" in text
    numbers = sum(value.numel() for key, value in weights().items() if not key.startswith("fc.") and value.dim())
    assert numbers == 11_186_112


def test_shortened_lists():
    assert shorten([]) == ""
    assert shorten(map(str, range(8))) == "0, 1, 2, 3, 4, 5, 6, 7"
    assert shorten(map(str, range(9))) == "0, 1, 2, 3, 4, 5, 6, 7 and 1 more"
    assert describe(mismatched("a", "b", (1,), ())) == "a (1,) in the model, () in the file"
