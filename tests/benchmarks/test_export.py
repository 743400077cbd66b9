"""A share of the table of exports: every kind in two cheap columns, every column for a kind or two, and the page."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.export_check import COLUMNS, Cell, Subject, difference, run_cell
from benchmarks.export_kinds import KINDS, Kind
from benchmarks.export_table import BEGIN, END, insert, table
from detrex_backbones import Backbone, ShapeSpec

PAGE = Path(__file__).parents[2] / "docs" / "export.md"
NAMED = {kind.name: kind for kind in KINDS}
NEEDS = {"ONNX": "onnxruntime", "int8": "torchao"}


class Tiny(Backbone):
    """Runs in no time, and wrongly in the way that it is told."""

    def __init__(self, wrong: str = "") -> None:
        super().__init__()
        self.conv, self.norm, self.wrong = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), wrong

    def output_shape(self):
        return {"map": ShapeSpec(channels=4, stride=1)}

    def forward(self, x):
        if self.wrong == "looks at values" and x.sum() > 1e9:
            x = -x
        x = self.norm(self.conv(x))
        return {"map": x.float() if self.wrong == "float32 alone" else x}


# The others take seconds to build, or are pinned elsewhere: in tests of fuse() and of every kind of backbone.
QUICK = [name for name in NAMED if name not in ("Darknet-53", "SSD's VGG-16", "DC5, detectron2's", "ResNeXt")]


@pytest.mark.few(2)
@pytest.mark.parametrize("name", QUICK)
def test_every_kind_in_half_precision_and_fused(name):
    subject = Subject(NAMED[name])
    for column in ("bfloat16", "fuse()"):
        cell = run_cell(subject, column)
        assert cell.works, cell.reason


@pytest.mark.few(1)
@pytest.mark.parametrize("column", COLUMNS)
def test_every_column(column):
    pytest.importorskip(NEEDS.get(column, "torch"))
    cell = run_cell(Subject(Kind("tiny", Tiny)), column)
    assert cell.works, cell.reason


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("deformable, modulated", "ONNX"),
        ("FeatureExtractor of ConvNeXt", "torch.compile"),
    ],
)
def test_some_of_the_others(name, column):
    pytest.importorskip(NEEDS.get(column, "torch"))
    subject = Subject(NAMED[name], backend="eager")
    cell = run_cell(subject, column)
    assert cell.works, cell.reason


@pytest.mark.parametrize(
    ("wrong", "column", "reason"),
    [
        ("looks at values", "torch.export", "data-dependent"),
        ("looks at values", "torch.compile", "Unsupported"),
        ("float32 alone", "bfloat16", "not bfloat16"),
    ],
)
def test_what_does_not_work_is_a_cell_with_its_reason(wrong, column, reason):
    cell = run_cell(Subject(Kind("tiny", lambda: Tiny(wrong))), column)
    assert not cell.works
    assert reason in cell.reason


def test_a_difference_is_that_of_the_worst_map():
    one, zero = torch.ones(4), torch.zeros(4)
    assert difference({"a": one, "b": one * 1.5}, {"a": one, "b": one}) == 0.5
    assert not difference({"a": one}, {"a": one, "b": one}) < 1
    assert not difference({"a": one[:3]}, {"a": one}) < 1
    assert not difference({"a": zero * float("nan")}, {"a": one}) < 1


def test_the_table_shows_each_reason_once():
    kind = KINDS[0].name
    results = {
        kind: {
            "ONNX": Cell(False, reason="too | new"),
            "int8": Cell(False, reason="too | new"),
            "fuse()": Cell(True, "0"),
        }
    }
    text = table(results, "eager", "9.9")
    assert "torch 9.9, `torch.compile` with the backend `eager`: 1 of 3 work." in text
    row = next(line for line in text.splitlines() if line.startswith(f"| {kind} |"))
    assert row.count("**no** (1)") == 2 and row.count("not tried") == len(COLUMNS) - 3
    assert text.count("1. too \\| new") == 1
    assert (
        insert(f"before\n{BEGIN}\nold\n{END}\nafter\n", results, "eager", "9.9")
        == f"before\n{BEGIN}\n\n{text}\n{END}\nafter\n"
    )


def test_the_page_has_every_kind_and_every_column_tried():
    page = PAGE.read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    assert rows[0] == ["backbone", "sides", *COLUMNS]
    assert [row[0] for row in rows[1:]] == list(NAMED)
    assert all(len(row) == len(rows[0]) for row in rows)
    assert "not tried" not in page
    notes = {int(number) for number in re.findall(r"^(\d+)\. ", page, re.MULTILINE)}
    used = {int(number) for row in rows for cell in row for number in re.findall(r"(?:no\*\*|fixed) \((\d+)\)", cell)}
    assert notes == used
