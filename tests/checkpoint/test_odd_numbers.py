"""Numbers in a file's names that no layer has: such names have no place, and nothing fails for them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from detrex_backbones import DetectionCheckpointer, load_checkpoint
from detrex_backbones.checkpoint.files import Checkpoint
from detrex_backbones.checkpoint.match.plan import plan_checkpoint
from detrex_backbones.checkpoint.names.conventions import conventions
from tests.checkpoint.nets import ours, snapshot, weights

ODD = {"thousands of digits": "9" * 5000, "ten digits": "1234567890", "superscript": "²", "a wildcard": "#"}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize("name", sorted(conventions()))
def test_no_convention_fails_for_them(name: str, odd: str) -> None:
    convention = conventions()[name]
    marks = [part for anchors in convention.anchors for part in anchors]
    templates = [pair.theirs.replace("{leaf}", "weight") for pair in convention.pairs] or marks
    odd_names = [re.sub(r"\{\w+?([+-]\d+)?\}|\d+", odd, template) for template in templates if template]
    odd_names += [re.sub(r"\d+", odd, mark, count=1) for mark in marks]
    state = {key: torch.zeros(4, 4, 1, 1) for key in (*marks, *odd_names)}
    checkpoint = Checkpoint(Path("file.pth"), "torch", "", state)
    for source in (None, name):
        attempt = plan_checkpoint({"stem.conv1.weight": (4, 4, 1, 1)}, checkpoint, source=source)
        assert not {item.checkpoint_key for item in attempt.report.loaded} & set(odd_names) - set(marks)


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_a_file_loads_beside_them(odd: str) -> None:
    model = ours()
    state = weights()
    load_checkpoint(model, state)
    before = snapshot(model)
    state[f"layer{odd}.0.conv1.weight"] = torch.zeros(4, 4, 3, 3)
    report = load_checkpoint(model, state)
    assert report.coverage == 1.0 and not [item for item in report.loaded if odd in item.checkpoint_key]
    assert snapshot(model) == before


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_an_optimisers_state_with_them_is_kept(tmp_path: Path, odd: str) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    keeper = DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer)
    value = torch.ones(3)
    assert torch.equal(keeper._kept(f"optimizer.state.{odd}.exp_avg", value), value)
