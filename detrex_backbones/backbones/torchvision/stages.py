"""The last node of each stride of a torchvision network, found from shapes: no table of networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import nn
from torchvision.models.feature_extraction import get_graph_node_names

from detrex_backbones.backbones.torchvision.network import quiet
from detrex_backbones.backbones.torchvision.nodes import extractor, map_shape, run_both_sizes
from detrex_backbones.errors import ArgumentError

__all__ = ["RESNET_NODES", "check_freeze_at", "last_of_each_stride", "parameters_before"]

# detrex's default, which a dilated ResNet has as well, whose last strides are equal.
RESNET_NODES = {"layer1": "res2", "layer2": "res3", "layer3": "res4", "layer4": "res5"}


class _Node(NamedTuple):
    name: str
    stride: int


def last_of_each_stride(
    model_name: str, model: nn.Module, tracer_kwargs: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """{node: name of its map}, "res2" for stride 4 and so on; "res1" of stride 2, too, where there is one.

    A stride's node is the one that goes into the module that first gives a coarser map: the output of whole blocks,
    not a layer within the next one. The last is the node before the part of the network that makes the scores.

    Args:
        model_name: as of `TorchvisionBackbone`.
        model: the network, on the meta device.
        tracer_kwargs: as of `TorchvisionBackbone`.

    Raises:
        ArgumentError: the network doesn't take images of any size.
    """
    if all(hasattr(model, node) for node in RESNET_NODES):
        return {"relu": "res1", **RESNET_NODES}
    with quiet():
        _, names = get_graph_node_names(model, dict(tracer_kwargs or {}) or None, suppress_diff_warning=True)
    every = {name: name for name in names[1:]}  # the first is the image
    values = run_both_sizes(model_name, extractor(model, (every, every), dict(tracer_kwargs or {}) or None))
    # The last part of the network that learns makes the scores.
    head = next(part for part in (name.partition(".")[0] for name in reversed(names)) if _learns(model, part))
    found = []
    for name in every:
        shape = None if name.partition(".")[0] == head else map_shape(*(value[name] for value in values))
        if shape is not None:
            found.append(_Node(name, shape[1]))
    picked = {}
    for stride in sorted({node.stride for node in found}):
        node = _before_coarser(found, stride)
        if node is not None and stride > 1:
            picked[node] = f"res{stride.bit_length() - 1}"
    return picked


def _learns(model: nn.Module, child: str) -> bool:
    part = getattr(model, child, None)
    return isinstance(part, nn.Module) and any(True for _ in part.parameters())


def _before_coarser(nodes: list[_Node], stride: int) -> str | None:
    """The last node of this stride that stands before the outermost module that goes on to a coarser one."""
    coarser = next((at for at, node in enumerate(nodes) if node.stride > stride), None)
    if coarser is None:
        return nodes[-1].name
    parts = nodes[coarser].name.split(".")
    allowed = {stride, nodes[coarser].stride}
    for count in range(1, len(parts) + 1):
        module = ".".join(parts[:count])
        inside = [at for at, node in enumerate(nodes) if f"{node.name}.".startswith(f"{module}.")]
        before = nodes[min(inside) - 1] if min(inside) else None
        if before is not None and before.stride == stride and {nodes[at].stride for at in inside} <= allowed:
            return before.name
    return None


def parameters_before(model: nn.Module, node: str, tracer_kwargs: dict[str, Any] | None) -> set[str]:
    """The names of the parameters that a node's value depends on."""
    part = extractor(model, ({node: node}, {node: node}), tracer_kwargs).eval()
    return {name for name, _ in part.named_parameters()}


def check_freeze_at(model_name: str, freeze_at: Any, names: Iterable[str]) -> None:
    """Refuse, by an ArgumentError, what is no stage of the network; see `TorchvisionBackbone`."""
    allowed = {0: "nothing"} | {int(name.removeprefix("res")): f"up to {name}" for name in names}
    if isinstance(freeze_at, bool) or freeze_at not in allowed:
        listed = ", ".join(f"{number} ({what})" for number, what in allowed.items())
        raise ArgumentError(f"freeze_at={freeze_at!r} is out of range for {model_name}. Allowed: {listed}.")
