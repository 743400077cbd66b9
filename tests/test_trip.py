"""CONTRIBUTING's list of the steps of a load is what a load does."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from detrex_backbones import load_checkpoint
from tests.checkpoint.nets import ours, weights

ROOT = Path(__file__).parents[1]
STEP = re.compile(r"^ *((?:checkpoint/)?[a-z_/]+\.py) +(\w+) {2,}\S", re.MULTILINE)


def test_the_trip_is_the_one_in_the_picture(tmp_path: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    picture = text.partition("## The steps of a load")[2].partition("## ")[0]
    steps = [(file.removeprefix("checkpoint/"), function) for file, function in STEP.findall(picture)]
    assert len(steps) == picture.count(".py ")
    path, model = tmp_path / "resnet18.pth", ours()
    torch.save(weights(), path)
    called: list[tuple[str, str]] = []

    def follow(frame: FrameType, event: str, _: Any) -> None:
        place = (frame.f_code.co_filename.rpartition("/checkpoint/")[2], frame.f_code.co_name)
        if event == "call" and place in steps and place not in called:
            called.append(place)

    sys.setprofile(follow)
    try:
        load_checkpoint(model, path)
    finally:
        sys.setprofile(None)
    assert called == steps
