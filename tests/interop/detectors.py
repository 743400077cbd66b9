"""Detectors of detectron2 and detrex in pairs: over their own backbone, and over ours by a change of import lines."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from detrex_backbones import load_checkpoint
from detrex_backbones.checkpoint.report import LoadReport
from tests.interop.theirs import fill_norms, twin_of
from tests.reference import noise

SIZE = (224, 288)  # enough places for the 900 proposals that DINO takes


class Pair(NamedTuple):
    """The same detector twice, with the same weights, that went through a file and our loader."""

    theirs: nn.Module
    ours: nn.Module
    report: LoadReport


def build(config: Path, change: Callable[[Any], None]) -> nn.Module:
    """The model of a config, made by their loader and their `instantiate`, on the CPU."""
    from detectron2.config import LazyConfig, instantiate

    node = LazyConfig.load(str(config)).model
    if "device" in node:
        node.device = "cpu"
    change(node)
    model: nn.Module = instantiate(node)
    return model


def make_pair(config: Path, folder: Path, change: Callable[[Any], None]) -> Pair:
    torch.manual_seed(0)
    theirs = fill_norms(build(config, change))
    ours = build(twin_of(config, folder / "configs"), change)
    assert type(backbone_of(ours)).__module__.startswith("detrex_backbones.")
    assert not type(backbone_of(theirs)).__module__.startswith("detrex_backbones.")
    torch.save({"model": theirs.state_dict()}, folder / "theirs.pth")
    return Pair(theirs, ours, load_checkpoint(ours, folder / "theirs.pth"))


def backbone_of(model: Any) -> Any:
    return getattr(model.backbone, "bottom_up", model.backbone)


def image() -> Tensor:
    """Values of 0 to 255, (3, H, W), the same in every run."""
    return (noise(3, *SIZE) * 60 + 120).clamp(0, 255)


def detect(model: nn.Module) -> dict[str, Any]:
    """What the detector finds in the image: boxes, scores, classes."""
    model.eval()
    with torch.no_grad():
        (output,) = model([{"image": image(), "height": SIZE[0], "width": SIZE[1]}])
    found: dict[str, Any] = output["instances"].get_fields()
    return found


def losses(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The losses of a training step, and the gradients of the backbone's parameters.

    The backbone computes in double precision. In single, rounding is a few thousandths of the first layers' gradients:
    our convolutions compute frozen norms as a part of their weights, and the sums are other ones.
    """
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage

    wanted = Instances(SIZE)
    wanted.gt_boxes = Boxes(torch.tensor([[20.0, 30.0, 120.0, 150.0], [150.0, 60.0, 260.0, 200.0]]))
    wanted.gt_classes = torch.tensor([3, 7])
    model = copy.deepcopy(model).train()
    backbone = backbone_of(model).double()
    backbone.register_forward_pre_hook(lambda _, images: tuple(value.double() for value in images))
    backbone.register_forward_hook(lambda _, __, maps: {name: value.float() for name, value in maps.items()})
    torch.manual_seed(0)  # for dropout, and for the anchors that are drawn
    with EventStorage():
        values = model([{"image": image(), "instances": wanted, "height": SIZE[0], "width": SIZE[1]}])
    sum(values.values()).backward()
    return values, {name: value.grad for name, value in backbone.named_parameters() if value.grad is not None}
