"""What a published weight wants of a network, read off the network that its publisher made it with."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from detrex_backbones.checkpoint.fetch import Weight

__all__ = ["parts_of", "traits_of_weight"]

# torchvision's detectors make their backbones with norms of this eps, whatever the classifier's have.
DETECTORS_EPS = {"fasterrcnn_mobilenet_v3_large_fpn": 1e-5, "fasterrcnn_mobilenet_v3_large_320_fpn": 1e-5}


def traits_of_weight(weight: Weight) -> dict[str, Any]:
    """What is known of a weight, and, for timm's and torchvision's, how their network pads and which eps it has."""
    scheme = weight.name.partition("://")[0]
    return {**_parts_of_network(scheme, weight.model), **weight.traits}


def parts_of(modules: Iterable[nn.Module]) -> dict[str, Any]:
    """What norms and convolutions do, whatever they are called; see `traits.TRAITS`."""
    traits: dict[str, Any] = {}
    modules = list(modules)
    norms: list[Any] = [module for module in modules if hasattr(module, "running_mean")]
    epsilons = {float(norm.eps) for norm in norms if hasattr(norm, "eps")}
    if len(epsilons) == 1:
        traits["norm_eps"] = epsilons.pop()
    convolutions = [module for module in modules if isinstance(module, nn.Conv2d)]
    kinds = {type(module).__name__ for module in convolutions}
    if any(max(conv.stride) > 1 and max(conv.kernel_size) > 1 for conv in convolutions):
        traits["padding"] = "same" if any("Same" in kind for kind in kinds) else "symmetric"
    if convolutions:
        traits["weight_standardization"] = any("StdConv" in kind or "ConvWS" in kind for kind in kinds) or any(
            getattr(conv, "weight_standardization", False) for conv in convolutions
        )
    return traits


@functools.cache
def _parts_of_network(scheme: str, name: str) -> dict[str, Any]:
    if name in DETECTORS_EPS:
        return {"norm_eps": DETECTORS_EPS[name]}
    try:
        with torch.device("meta"):
            network = _make(scheme, name)
    except Exception:  # an old release that wants numbers while it is built: then nothing is known
        return {}
    return parts_of(network.modules()) if network is not None else {}


def _make(scheme: str, name: str) -> nn.Module | None:
    """The classifier of this name; None for a detector, or another publisher's network."""
    if scheme == "timm":
        import timm

        return timm.create_model(name)  # type: ignore[no-any-return]
    if scheme == "torchvision":
        import torchvision

        if name in torchvision.models.list_models(module=torchvision.models):
            return torchvision.models.get_model(name)  # type: ignore[no-any-return]
    return None
