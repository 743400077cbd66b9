"""A config's node built without weights, for what can be known of it before any exist."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from omegaconf import DictConfig, open_dict
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from detrex_backbones.config import instantiate
from detrex_backbones.config.nodes import clone, is_call, nodes_below, peek
from detrex_backbones.errors import ArgumentError, DetrexBackbonesError
from detrex_backbones.layers import ShapeSpec
from detrex_backbones.layers.init import DRAWS

__all__ = ["build_on_meta", "shapes_of", "without_downloads"]

OWN_WEIGHTS = ("pretrained", "checkpoint_path", "weights")  # arguments of TimmBackbone and TorchvisionBackbone
SIDE = 256  # height and width of an image in pixels: a multiple of every usual stride


class _WithoutNumbers(TorchFunctionMode):
    """Random numbers are not drawn for meta tensors, which have none: torch would import its compiler to do nothing.

    Rates of drop path come from linspace in many networks, which read its numbers: they are made on the CPU.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        target = args[0] if args else kwargs.get("tensor")
        if isinstance(target, Tensor) and target.is_meta and getattr(func, "__name__", "") in DRAWS:
            return target
        if func is torch.linspace:
            kwargs.setdefault("device", "cpu")
        return func(*args, **kwargs)


def build_on_meta(node: DictConfig) -> Any:
    """What `instantiate(node)` gives, its parameters and buffers on the meta device: shapes without memory."""
    with torch.device("meta"), _WithoutNumbers():
        return instantiate(without_downloads(node))


def without_downloads(node: Any) -> Any:
    """The node without the weights that our own backbones would fetch or read while they are built."""
    if not isinstance(node, DictConfig) or not any(map(_fetched, _calls(node))):
        return node
    copied = clone(node, node._get_parent())
    for place in _calls(copied):
        for key in _fetched(place):
            with open_dict(place):
                del place[key]
    return copied


def _calls(node: DictConfig) -> Iterator[DictConfig]:
    return (place for place in [node, *nodes_below(node)] if isinstance(place, DictConfig) and is_call(place))


def _fetched(place: DictConfig) -> list[str]:
    target = peek(place, "_target_")
    module = target if isinstance(target, str) else getattr(target, "__module__", "")
    return [key for key in OWN_WEIGHTS if key in place] if module.startswith("detrex_backbones.") else []


def shapes_of(node: DictConfig, name: str) -> dict[str, Any]:
    """`output_shape()` of a backbone's node, built without weights; a classifier's scores are left out.

    Of a network that has no `output_shape`, they are read off the maps that it makes of an image.

    Args:
        node: config node of the backbone.
        name: what it is called in messages.

    Raises:
        ArgumentError: it can't be built, or is no backbone.
    """
    try:
        backbone = build_on_meta(node)
        shapes = dict(backbone.output_shape() if hasattr(backbone, "output_shape") else _by_running(backbone))
    except DetrexBackbonesError:
        raise
    except Exception as error:
        raise ArgumentError(f"the shapes of {name} can't be found: {type(error).__name__}: {error}") from error
    return {key: shape for key, shape in shapes.items() if key != "linear"}


def _by_running(backbone: nn.Module) -> dict[str, ShapeSpec]:
    with torch.no_grad():
        maps = backbone.eval()(torch.empty(1, 3, SIDE, SIDE, device="meta"))
    if not isinstance(maps, Mapping) or not all(
        isinstance(value, Tensor) and value.dim() == 4 for value in maps.values()
    ):
        raise TypeError("it has no output_shape, and doesn't return a dict of maps (N, C, H, W) either")
    return {key: ShapeSpec(channels=value.shape[1], stride=SIDE // value.shape[-1]) for key, value in maps.items()}
