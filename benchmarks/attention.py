"""Transformers beside the peers' classes of the same arguments: inference and a training step, round by round."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import nn

import detrex_backbones
from benchmarks.measure import Options, Row, attempt, compared, in_rounds
from benchmarks.pairs import paired
from benchmarks.peers import detectron2_there
from benchmarks.profiles import add_peak, add_profile, allocated
from benchmarks.workloads import Workload, prepare, train_step

GROUP = "attention"
FASTER = 1.0  # times as fast as the fastest peer
BY_HAND = 1.15  # where that one computes attention by matrix products that stand in memory
PEERS = ("detectron2", "timm", "transformers")

WINDOWS = [0, 1, 3, 4, 6, 7, 9, 10]

SWIN_L = {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48), "window_size": 12}
ANY_SIZE = {"strict_img_size": False}


@dataclass(frozen=True)
class Network:
    """One network of everybody.

    Args:
        kind: the class of ours and of detectron2.
        arguments: of both, for images of a side.
        timm: its name and arguments; None where it has none such.
        transformers: the name of its config and arguments; likewise.
    """

    kind: str
    arguments: Callable[[int], dict[str, Any]]
    timm: tuple[str, Callable[[int], dict[str, Any]]] | None = None
    transformers: tuple[str, Callable[[int], dict[str, Any]]] | None = None


NETWORKS = {
    "Swin-T": Network(
        "SwinTransformer",
        lambda side: {"drop_path_rate": 0.0},
        ("swin_tiny_patch4_window7_224", lambda side: {"img_size": side, **ANY_SIZE}),
        ("Swin", lambda side: {"out_indices": [1, 2, 3, 4], "drop_path_rate": 0.0}),
    ),
    "Swin-L": Network(
        "SwinTransformer",
        lambda side: {**SWIN_L, "drop_path_rate": 0.0},
        ("swin_large_patch4_window12_384", lambda side: {"img_size": side, **ANY_SIZE}),
        ("Swin", lambda side: {**SWIN_L, "out_indices": [1, 2, 3, 4], "drop_path_rate": 0.0}),
    ),
    "ViTDet-B": Network(
        "ViT",
        lambda side: {"img_size": side, "use_rel_pos": True, "window_size": 14, "window_block_indexes": WINDOWS},
        ("samvit_base_patch16", lambda side: {"img_size": side, "out_indices": [11]}),
        (
            "VitDet",
            lambda side: {
                "image_size": side,
                "pretrain_image_size": 224,
                "use_relative_position_embeddings": True,
                "window_size": 14,
                "window_block_indices": WINDOWS,
                "out_indices": [12],
            },
        ),
    ),
    # timm's has no windows and is bound to one size.
    "MViTv2-T": Network("MViT", lambda side: {"depth": 10, "last_block_indexes": (0, 2, 7, 9)}),
}


def rows(options: Options) -> Iterator[Row]:
    """Each network in evaluation without gradients, a step of it, and the memory of a step."""
    for name in NETWORKS:
        side = 512 if options.device == "cpu" else 1024
        work = Workload(1 if options.device == "cpu" else 2, (side, side), device=options.device)
        rounds = options.rounds_or(5 if options.device == "cpu" else 20)
        for kind in ("inference", "step"):
            what = f"{name} {kind}, {work}"
            yield attempt(GROUP, what, functools.partial(_row, what, name, kind, work, rounds))
        if options.device == "cpu":
            what = f"{name} tensors at the peak of a step, {work}"
            yield attempt(GROUP, what, functools.partial(_memory, what, name, work))


def _memory(what: str, name: str, work: Workload) -> Row:
    peaks: dict[str, float | None] = dict.fromkeys(PEERS)
    calls: dict[str, Callable[[], Any]] = {}
    images = work.images()
    for whose in whose_there(name):
        net = peer(name, whose, work)
        train_step(net, images[..., :64, :64], work)
        calls[whose] = functools.partial(train_step, net, images, work)
        peaks[whose] = allocated(calls[whose])
    return add_peak(compared(GROUP, what, peaks, against=PEERS, at_most=1.0, unit="MiB", rounds=1), calls)


def _row(what: str, name: str, kind: str, work: Workload, rounds: int) -> Row:
    images = work.images()

    @torch.no_grad()
    def infer(net: nn.Module) -> Any:
        return net(images)

    calls: dict[str, Callable[[], Any]] = {}
    for whose in whose_there(name):
        net = peer(name, whose, work).train(kind == "step")
        step = functools.partial(train_step, net, images, work)
        calls[whose] = step if kind == "step" else functools.partial(infer, net)
    taken = in_rounds(calls, rounds, 1, device=work.device)
    times = {whose: taken.get(whose, []) for whose in ("ours", *PEERS)}
    there = [whose for whose in PEERS if times[whose]]
    fastest = min(there, key=lambda whose: statistics.median(times[whose]), default="")
    fused = fastest == "transformers" and name.startswith("Swin")  # its VitDet computes by hand, as the others do
    return add_profile(paired(GROUP, what, times, against=PEERS, at_least=FASTER if fused else BY_HAND), calls)


class _Named(nn.Module):
    """A network whose maps come in a dict, as timm's and transformers' don't."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.net(images)
        maps = getattr(maps, "feature_maps", maps)
        return maps if isinstance(maps, dict) else {str(index): value for index, value in enumerate(maps)}


def whose_there(name: str) -> list[str]:
    """Ours, and who else has the network and is installed."""
    network = NETWORKS[name]
    there = {
        "ours": True,
        "detectron2": detectron2_there(),
        "timm": network.timm is not None,
        "transformers": network.transformers is not None and importlib.util.find_spec("transformers") is not None,
    }
    return [whose for whose, is_there in there.items() if is_there]


def peer(name: str, whose: str, work: Workload) -> nn.Module:
    """The network as that library has it, ready to be run."""
    return _Named(prepare(_network(NETWORKS[name], whose, work.size[0]), work))


def _network(network: Network, whose: str, side: int) -> nn.Module:
    if whose == "timm" and network.timm:
        model, more = network.timm
        return timm.create_model(model, features_only=True, **more(side))  # type: ignore[no-any-return]
    if whose == "transformers" and network.transformers:
        library = importlib.import_module("transformers")
        kind, arguments = network.transformers
        config = getattr(library, f"{kind}Config")(**arguments(side))
        return getattr(library, f"{kind}Backbone")(config)  # type: ignore[no-any-return]
    if whose == "detectron2":
        # detectron2 imports from where timm once had its layers.
        sys.modules.setdefault("timm.models.layers", timm.layers)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            library = importlib.import_module("detectron2.modeling")
            return getattr(library, network.kind)(**network.arguments(side))  # type: ignore[no-any-return]
    return getattr(detrex_backbones, network.kind)(**network.arguments(side))  # type: ignore[no-any-return]
