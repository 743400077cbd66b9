"""Nodes of a torchvision network's graphs: which there are, and what maps they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from detrex_backbones.backbones.torchvision.network import quiet
from detrex_backbones.backbones.traced import TracedPair, copyable
from detrex_backbones.errors import ArgumentError, closest, reason

__all__ = ["SIZES", "both_modes", "extractor", "map_shape", "map_shapes", "run_both_sizes"]

# Two image sizes tell which axes of a map are pixels, and how many pixels lie between two of its entries.
SIZES = ((512, 640), (1024, 1280))

Nodes = Mapping[str, str] | Sequence[str]


def extractor(
    model: nn.Module, nodes: tuple[dict[str, str], dict[str, str]], tracer_kwargs: dict[str, Any] | None = None
) -> TracedPair:
    """The graphs of a network, for training and for evaluation, that give these nodes."""
    with quiet():
        pair = create_feature_extractor(
            model,
            train_return_nodes=nodes[0],
            eval_return_nodes=nodes[1],
            tracer_kwargs=tracer_kwargs,
            suppress_diff_warning=True,
        )
    return copyable(pair)


def both_modes(
    model_name: str,
    model: nn.Module,
    return_nodes: Nodes | None,
    train_return_nodes: Nodes | None,
    eval_return_nodes: Nodes | None,
    tracer_kwargs: dict[str, Any] | None,
) -> tuple[dict[str, str], dict[str, str]]:
    """{node: name of its map} in training and in evaluation, from arguments as of `TorchvisionBackbone`.

    Raises:
        ArgumentError: a node that the network doesn't have, or one of the two modes without the other.
    """
    with quiet():
        train, evaluation = get_graph_node_names(model, tracer_kwargs, suppress_diff_warning=True)
    if train_return_nodes is None and eval_return_nodes is None:
        nodes = _check(model_name, "return_nodes", return_nodes, [name for name in train if name in evaluation])
        return nodes, nodes
    if train_return_nodes is None or eval_return_nodes is None:
        missing = "train_return_nodes" if train_return_nodes is None else "eval_return_nodes"
        raise ArgumentError(f"{missing} is missing: train_return_nodes and eval_return_nodes are given together.")
    nodes = _check(model_name, "train_return_nodes", train_return_nodes, train)
    others = _check(model_name, "eval_return_nodes", eval_return_nodes, evaluation)
    if list(nodes.values()) != list(others.values()):
        raise ArgumentError(
            f"train_return_nodes and eval_return_nodes give other maps: {list(nodes.values())} and "
            f"{list(others.values())}. Give the nodes of both the same names, in one order."
        )
    return nodes, others


def _check(model_name: str, argument: str, return_nodes: Any, names: list[str]) -> dict[str, str]:
    if isinstance(return_nodes, str) or not isinstance(return_nodes, Mapping | Sequence):
        listed = f"[{return_nodes!r}]" if isinstance(return_nodes, str) else "['layer4']"
        raise ArgumentError(
            f"{argument}={return_nodes!r} is of type {type(return_nodes).__name__}. It takes {listed} or a dict."
        )
    nodes = {**return_nodes} if isinstance(return_nodes, Mapping) else {name: name for name in return_nodes}
    if not nodes or len(nodes) != len(return_nodes) or len(set(nodes.values())) != len(nodes):
        raise ArgumentError(f"{argument}={return_nodes!r}: at least one node, no node and no name twice.")
    # A module stands for its last operation, and so does every module around it.
    allowed = dict.fromkeys(
        ".".join(parts[:count]) for name in names for parts in [name.split(".")] for count in range(1, len(parts) + 1)
    )
    for node in nodes:
        if node not in allowed:
            top = [name for name in allowed if "." not in name]
            raise ArgumentError(
                f"{argument}={return_nodes!r}: torchvision's {model_name} has no node {node!r}."
                f"{closest(node, allowed)} The outermost: {', '.join(top)}."
            )
    return nodes


def map_shapes(model_name: str, extractor: nn.Module) -> dict[str, tuple[int, int, bool]]:
    """Channels, stride and whether the channels come last, of every map. `extractor` is on the meta device."""
    small, large = run_both_sizes(model_name, extractor)
    shapes = {}
    for name, value in small.items():
        shape = map_shape(value, large[name])
        if shape is None:
            given = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise ArgumentError(f"{name!r} of torchvision's {model_name} is no feature map: it gives {given}.")
        shapes[name] = shape
    return shapes


def run_both_sizes(model_name: str, extractor: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the nodes give for images of the two `SIZES`. `extractor` is on the meta device.

    Raises:
        ArgumentError: the network takes images of one size alone.
    """
    try:
        # Not through `__call__`, which prints the code of a graph that fails.
        forward: Any = extractor.eval().forward
        with torch.no_grad():
            small, large = (forward(torch.empty(1, 3, *size, device="meta")) for size in SIZES)
    except Exception as error:
        raise ArgumentError(
            f"torchvision's {model_name} can't be a backbone, which is given images of any size: {reason(error)} "
            f"timm's networks of such kinds can: see TimmBackbone."
        ) from error
    return small, large


def map_shape(small: Any, large: Any) -> tuple[int, int, bool] | None:
    """Channels, stride and whether the channels come last, of a map for both `SIZES`; None for what is no map."""
    if not isinstance(small, Tensor) or small.dim() != 4:
        return None
    sizes = list(zip(small.shape, large.shape, strict=True))
    pixels = [axis for axis, (first, second) in enumerate(sizes) if first != second]
    if pixels not in ([2, 3], [1, 2]):
        return None
    first, second = sizes[pixels[0]]
    last = pixels == [1, 2]
    return sizes[3 if last else 1][0], (SIZES[1][0] - SIZES[0][0]) // (second - first), last
