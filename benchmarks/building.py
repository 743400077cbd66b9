"""How long a network takes to build from its config, when a checkpoint will fill it and when not."""

from __future__ import annotations

import functools
import importlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torchvision
from omegaconf import DictConfig

from benchmarks.measure import Options, Row, attempt, compared, in_rounds, peak_memory
from benchmarks.pairs import paired
from benchmarks.peers import detectron2_there
from detrex_backbones.layers.init import skip_random_init
from detrex_backbones.zoo import build_model, get_config

GROUP = "building"
DETECTOR = "detectors/faster_rcnn_resnet50_fpn.py"
OF_BUILDING = 1.2  # of what building alone takes


def rows(options: Options) -> Iterator[Row]:
    """R-50 with frozen norms, from a config that is loaded already."""
    for what, filled, at_most in (("R-50, weights to follow", True, 0.1), ("R-50, at random weights", False, 1.0)):
        yield attempt(GROUP, what, functools.partial(_build, what, filled, at_most, options))
    what = "Faster R-CNN R-50 with a backbone's file, beside none"
    yield attempt(GROUP, what, functools.partial(_detector, what, options))
    what = "Faster R-CNN R-50 with a backbone's file, peak memory beside none"
    yield attempt(GROUP, what, functools.partial(_memory, what))


def _build(what: str, filled: bool, at_most: float, options: Options) -> Row:
    ours = _builder("detrex_backbones.config", "detrex_backbones")
    builders = {"ours": functools.partial(_without_init, ours) if filled else ours}
    if detectron2_there():
        builders["detectron2"] = _builder("detectron2.config", "detectron2.modeling.backbone")
    times = {"detectron2": [], **in_rounds(builders, options.rounds_or())}
    return paired(GROUP, what, times, against=["detectron2"], at_most=at_most)


def _detector(what: str, options: Options) -> Row:
    """`build_model` with `train.init_checkpoint`, and without it: the network is built and the file is read once."""
    with tempfile.TemporaryDirectory() as folder:
        file = write_weights(folder)
        calls = {
            "ours": lambda: build_model(detector_config(file)),
            "no file": lambda: build_model(detector_config("")),
        }
        times = in_rounds(calls, options.rounds_or())
    return paired(GROUP, what, times, against=["no file"], at_most=OF_BUILDING)


def _memory(what: str) -> Row:
    before = "from benchmarks.building import build_model, detector_config"
    with tempfile.TemporaryDirectory() as folder:
        files = {"ours": write_weights(folder), "no file": ""}
        peaks = {
            name: peak_memory(before, f"model = build_model(detector_config({file!r}))") for name, file in files.items()
        }
    return compared(GROUP, what, peaks, against="no file", at_most=OF_BUILDING, unit="MiB", rounds=1)


def detector_config(file: str) -> DictConfig:
    """Faster R-CNN's ready config, with this file for its backbone; "" for none."""
    cfg = get_config(DETECTOR)
    cfg.train.init_checkpoint = file
    return cfg


def write_weights(folder: str) -> str:
    """torchvision's ResNet-50 with random weights, as a file."""
    path = f"{folder}/resnet50.pth"
    torch.save(torchvision.models.resnet50().state_dict(), path)
    return path


def _without_init(build: Callable[[], Any]) -> Any:
    with skip_random_init():
        return build()


def _builder(configs: str, backbones: str) -> Callable[[], Any]:
    """A function that makes R-50 from a config of that library."""
    config, backbone = importlib.import_module(configs), importlib.import_module(backbones)
    call = config.LazyCall
    node = call(backbone.ResNet)(
        stem=call(backbone.BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=call(backbone.ResNet.make_default_stages)(depth=50, stride_in_1x1=False, norm="FrozenBN"),
        out_features=["res2", "res3", "res4", "res5"],
        freeze_at=1,
    )
    return lambda: config.instantiate(node)
