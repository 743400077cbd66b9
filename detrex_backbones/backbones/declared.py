"""What a backbone declares by `output_shape()`, held against the maps that it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detrex_backbones.backbones.base import Backbone
from detrex_backbones.errors import ArgumentError
from detrex_backbones.layers import ShapeSpec

__all__ = ["check_at_first_forward", "check_maps", "shapes_given"]

# Networks that convolve without padding lose a few pixels; a wrong stride is off by a factor.
FACTOR, PIXELS = 2**0.5, 2.0


def check_maps(
    name: str, declared: Mapping[str, ShapeSpec], size: Sequence[int], given: Mapping[str, Sequence[int]]
) -> None:
    """Refuse maps that are others than those declared.

    Args:
        name: of the backbone, in messages.
        declared: what its `output_shape()` says.
        size: (H, W) of the image.
        given: name -> (C, H', W') of what it makes of the image; (C,) for a classifier's scores.

    Raises:
        ArgumentError: other names, channels or strides; it has both, of every map that differs.
    """
    problems = []
    if set(declared) != set(given):
        problems.append(f"the maps {', '.join(declared)}, but gives {', '.join(given) or 'none'}")
    for key, spec in declared.items():
        shape = given.get(key, ())
        channels = f"{spec.channels} channels" if shape and spec.channels not in (None, shape[0]) else ""
        stride = f"stride {spec.stride}" if spec.stride and _other_stride(spec.stride, size, shape[1:]) else ""
        if channels or stride:
            found = [f"{shape[0]}"] if channels else []
            found += [f"{'x'.join(map(str, shape[1:]))} pixels of {size[0]}x{size[1]}"] if stride else []
            problems.append(
                f"{key!r} with {' at '.join(filter(None, (channels, stride)))}, but gives {', '.join(found)}"
            )
    if problems:
        raise ArgumentError(
            f"{name} contradicts itself: its output_shape() declares {'; '.join(problems)}. "
            f"Mend output_shape() (or _out_feature_channels and _out_feature_strides), or forward()."
        )


def shapes_given(name: str, maps: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of the maps that a `forward` returned, without the batch: name -> (C, H', W').

    Raises:
        ArgumentError: it returned something else than a dict.
    """
    if not isinstance(maps, Mapping):
        raise ArgumentError(f"{name}.forward() returns a {type(maps).__name__}. It must be a dict of named maps.")
    return {key: tuple(value.shape[1:]) for key, value in maps.items() if isinstance(value, Tensor)}


def check_at_first_forward(backbone: nn.Module) -> None:
    """Hold the maps of the first image that a backbone runs against its `output_shape()`: once, then never again."""
    hooks = backbone._forward_hooks.values()
    if hasattr(backbone, "output_shape") and not any(isinstance(hook, _AtFirstForward) for hook in hooks):
        backbone.register_forward_hook(_AtFirstForward())


class _AtFirstForward:
    """A hook that takes itself away; copies and pickles of the module have one of their own."""

    def __call__(self, backbone: Backbone, args: tuple[Any, ...], maps: Any) -> None:
        if torch.compiler.is_compiling() or not (args and isinstance(args[0], Tensor)):
            return
        name = type(backbone).__name__
        check_maps(name, backbone.output_shape(), tuple(args[0].shape[-2:]), shapes_given(name, maps))
        for key, hook in list(backbone._forward_hooks.items()):
            if hook is self:
                del backbone._forward_hooks[key]


def _other_stride(stride: int, size: Sequence[int], given: Sequence[int]) -> bool:
    """Whether a map of (H', W') has another stride than the one declared; scores have none."""
    for whole, part in zip(size, given, strict=False):
        expected = whole / stride
        if abs(part - expected) > PIXELS and not 1 / FACTOR < part / expected < FACTOR:
            return True
    return False
