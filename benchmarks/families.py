"""Networks of other families than ResNet: ours beside detrex's, timm's and transformers' of the same numbers."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import timm
import torch
from torch import nn

import detrex_backbones
from benchmarks.measure import Options, Rounds, Row, attempt, compared, in_rounds
from benchmarks.pairs import paired
from benchmarks.profiles import add_peak, add_profile, allocated
from benchmarks.workloads import Workload, prepare

GROUP = "families"
FASTER = 1.0  # times as fast as the fastest peer
BY_HAND = 1.15  # where that peer computes attention by matrix products that stand in memory
PEERS = ("detrex", "timm", "transformers")

CONVNEXT = {"depths": (3, 3, 9, 3), "dims": (96, 192, 384, 768)}
FOCALNET = {"embed_dim": 96, "depths": (2, 2, 6, 2), "focal_levels": (2, 2, 2, 2), "focal_windows": (3, 3, 3, 3)}
EVA02 = {"img_size": 512, "window_size": 16, "window_block_indexes": [0, 1, 3, 4, 6, 7, 9, 10]}

# Name -> class and arguments of ours and of detrex's; timm's; transformers' class and config; the image; the target.
FAMILIES: dict[str, dict[str, Any]] = {
    "ConvNeXt-T": {
        "ours": ("ConvNeXt", CONVNEXT),
        "timm": "convnext_tiny",
        "transformers": ("ConvNext", {"depths": [3, 3, 9, 3], "hidden_sizes": [96, 192, 384, 768]}),
        "size": (224, 224),
        "target": FASTER,
    },
    "FocalNet-T": {
        "ours": ("FocalNet", FOCALNET | {"drop_path_rate": 0.0}),
        "timm": "focalnet_tiny_srf",
        "transformers": (
            "FocalNet",
            {"embed_dim": 96, "hidden_sizes": [192, 384, 768, 768], "depths": [2, 2, 6, 2], "drop_path_rate": 0.0},
        ),
        "size": (224, 224),
        "target": FASTER,
    },
    "EVA-02-B": {"ours": ("EVA02_ViT", EVA02), "size": (512, 512), "target": BY_HAND},
}


def rows(options: Options) -> Iterator[Row]:
    """Inference and a training step of each family."""
    rounds = options.rounds_or(5 if options.device == "cpu" else 30)
    for name, family in FAMILIES.items():
        work = Workload(1, family["size"], device=options.device)
        for what, grad in (("inference", False), ("step", True)):
            named = f"{name} {what}, {work}"
            yield attempt(GROUP, named, functools.partial(_beside, named, family, work, grad, rounds))
        if options.device == "cpu":
            named = f"{name} tensors at the peak of a step, {work}"
            yield attempt(GROUP, named, functools.partial(_memory, named, name, work))


def _memory(what: str, name: str, work: Workload) -> Row:
    peaks: dict[str, float | None] = dict.fromkeys(PEERS)
    calls: dict[str, Callable[[], None]] = {}
    for whose, net in networks(FAMILIES[name]).items():
        if net is not None:
            net, images = prepare(net, work).eval(), work.images()
            step(net, images)
            calls[whose] = functools.partial(step, net, images)
            peaks[whose] = allocated(calls[whose])
    return add_peak(compared(GROUP, what, peaks, against=PEERS, at_most=1.0, unit="MiB", rounds=1), calls)


def _beside(what: str, family: dict[str, Any], work: Workload, grad: bool, rounds: Rounds) -> Row:
    nets = {name: prepare(net, work).eval() for name, net in networks(family).items() if net is not None}
    calls = {name: functools.partial(step, net, work.images(), grad) for name, net in nets.items()}
    times: dict[str, list[float]] = {name: [] for name in PEERS}
    times |= in_rounds(calls, rounds, device=work.device)
    return add_profile(paired(GROUP, what, times, against=PEERS, at_least=family["target"]), calls)


def step(net: nn.Module, images: torch.Tensor, grad: bool = True) -> None:
    """Forward, and backward with `grad`."""
    with torch.set_grad_enabled(grad):
        loss = torch.stack([value.mean() for value in maps_of(net(images))]).sum()
    if grad:
        loss.backward()  # type: ignore[no-untyped-call]
        net.zero_grad(set_to_none=True)


def networks(family: dict[str, Any]) -> dict[str, nn.Module | None]:
    """Everybody's network; None for a peer that isn't installed or has none."""
    kind, arguments = family["ours"]
    nets: dict[str, nn.Module | None] = {"ours": getattr(detrex_backbones, kind)(**arguments)}
    nets["detrex"] = _detrexs(kind, arguments)
    nets["timm"] = timm.create_model(family["timm"], pretrained=False, features_only=True) if "timm" in family else None
    nets["transformers"] = _transformers(*family["transformers"]) if "transformers" in family else None
    return nets


def maps_of(output: Any) -> list[torch.Tensor]:
    """The maps, whichever of the libraries gave them."""
    maps = getattr(output, "feature_maps", output)
    return list(maps.values() if isinstance(maps, dict) else maps)


def _detrexs(kind: str, arguments: dict[str, Any]) -> nn.Module | None:
    # The tests know what detrex can do without where it isn't compiled.
    import pytest

    from tests.interop.theirs import need_detrex

    try:
        need_detrex()
    except pytest.skip.Exception:
        return None
    return getattr(importlib.import_module("detrex.modeling.backbone"), kind)(**arguments)  # type: ignore[no-any-return]


def _transformers(kind: str, arguments: dict[str, Any]) -> nn.Module | None:
    try:
        library = importlib.import_module("transformers")
    except ImportError:
        return None
    config = getattr(library, f"{kind}Config")(**arguments, out_indices=[1, 2, 3, 4])
    return getattr(library, f"{kind}Backbone")(config)  # type: ignore[no-any-return]
