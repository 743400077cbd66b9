"""Transformers beside the peers' classes of the same arguments: inference and a training step, round by round."""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import timm
import torch
from torch import nn

import detrex_backbones
from benchmarks.measure import Options, Row, attempt, in_rounds
from benchmarks.pairs import paired
from benchmarks.peers import detectron2_there
from benchmarks.workloads import Workload, prepare, train_step

GROUP = "attention"
TARGET = 1.15  # times as fast as the fastest peer: detectron2's and timm's write Swin's and ViTDet's attention out
PEERS = ("detectron2", "timm")

WINDOWS = [0, 1, 3, 4, 6, 7, 9, 10]

# Network -> class, arguments for images of a side, and timm's network of the same size: its name and arguments.
NETWORKS: dict[str, tuple[str, Callable[[int], dict[str, Any]], tuple[str, Callable[[int], dict[str, Any]]] | None]] = {
    "Swin-T": (
        "SwinTransformer",
        lambda side: {"drop_path_rate": 0.0},
        ("swin_tiny_patch4_window7_224", lambda side: {"img_size": side, "strict_img_size": False}),
    ),
    "ViTDet-B": (
        "ViT",
        lambda side: {"img_size": side, "use_rel_pos": True, "window_size": 14, "window_block_indexes": WINDOWS},
        ("samvit_base_patch16", lambda side: {"img_size": side, "out_indices": [11]}),
    ),
    "MViTv2-T": (
        "MViT",
        lambda side: {"depth": 10, "last_block_indexes": (0, 2, 7, 9)},
        None,  # timm's has no windows and is bound to one size
    ),
}


def rows(options: Options) -> Iterator[Row]:
    """Each network in evaluation without gradients, and a step of it."""
    rounds = options.rounds_or(5 if options.device == "cpu" else 20)
    for name in NETWORKS:
        for kind in ("inference", "step"):
            side = 512 if options.device == "cpu" else 1024
            work = Workload(1 if options.device == "cpu" else 2, (side, side), device=options.device)
            what = f"{name} {kind}, {work}"
            yield attempt(GROUP, what, functools.partial(_row, what, name, kind, work, rounds))


def _row(what: str, name: str, kind: str, work: Workload, rounds: int) -> Row:
    images = work.images()

    @torch.no_grad()
    def infer(net: nn.Module) -> Any:
        return net(images)

    calls: dict[str, Callable[[], Any]] = {}
    for peer, net in _networks(name, work.size[0]).items():
        net = prepare(net, work).train(kind == "step")
        step = functools.partial(train_step, _Named(net), images, work)
        calls[peer] = step if kind == "step" else functools.partial(infer, net)
    taken = in_rounds(calls, rounds, 1, device=work.device)
    times = {peer: taken.get(peer, []) for peer in ("ours", *PEERS)}
    return paired(GROUP, what, times, against=PEERS, at_least=TARGET)


class _Named(nn.Module):
    """A network whose maps come in a dict, as timm's don't."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.net(images)
        return maps if isinstance(maps, dict) else {str(index): value for index, value in enumerate(maps)}


def _networks(name: str, side: int) -> dict[str, nn.Module]:
    kind, arguments, of_timm = NETWORKS[name]
    nets = {"ours": getattr(detrex_backbones, kind)(**arguments(side))}
    if detectron2_there():
        # detectron2 imports from where timm once had its layers.
        sys.modules.setdefault("timm.models.layers", timm.layers)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nets["detectron2"] = getattr(importlib.import_module("detectron2.modeling"), kind)(**arguments(side))
    if of_timm:
        model, more = of_timm
        nets["timm"] = timm.create_model(model, features_only=True, **more(side))
    return nets
