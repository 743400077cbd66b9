"""A config's node built without weights, for what can be known of it before any exist."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from detrex_backbones.config import instantiate
from detrex_backbones.errors import ArgumentError, DetrexBackbonesError
from detrex_backbones.layers import ShapeSpec

__all__ = ["build_on_meta", "shapes_of"]

SIDE = 256  # height and width of an image in pixels: a multiple of every usual stride


class _LinspaceOnCpu(TorchFunctionMode):
    """Rates of drop path come from linspace in many networks, which read its numbers: meta tensors have none."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs.setdefault("device", "cpu")
        return func(*args, **kwargs)


def build_on_meta(node: DictConfig) -> Any:
    """What `instantiate(node)` gives, its parameters and buffers on the meta device: shapes without memory."""
    with torch.device("meta"), _LinspaceOnCpu():
        return instantiate(node)


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
