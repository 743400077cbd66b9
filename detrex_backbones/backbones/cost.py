"""What a backbone costs and gives, without allocating its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

from detrex_backbones.backbones.base import Backbone
from detrex_backbones.backbones.declared import shapes_given
from detrex_backbones.backbones.shapes_only import EagerMode, shapes_only
from detrex_backbones.errors import ArgumentError, InputError

__all__ = ["Measures", "measure"]


@dataclass(frozen=True)
class Measures:
    """The figures of one backbone.

    Args:
        parameters: how many numbers it has, frozen ones and those of frozen norms not left out.
        trainable: how many of them get gradients.
        gflops: billions of multiply-adds of convolutions, linear layers and attention for one image, as torch counts
            them; those of deformable convolutions and norms are left out.
        shapes: name -> (C, H, W) of every map for that image.
    """

    parameters: int
    trainable: int
    gflops: float
    shapes: dict[str, tuple[int, ...]]


class _FlopCounter(EagerMode):  # type: ignore[no-untyped-call,unused-ignore]
    """Counts as torch's `FlopCounterMode` does, by the same formulas, without importing torch's compiler for it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call,unused-ignore]
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        return result


def measure(backbone: Backbone, size: tuple[int, int], channels: int = 3) -> Measures:
    """Count parameters and multiply-adds, and see which shapes come out.

    Args:
        backbone: built on the meta device: `with torch.device("meta"): ...`. It is left in evaluation mode.
        size: height and width of the image in pixels.
        channels: number of channels of the image.

    Raises:
        InputError: an image of this size can't be run.
        ArgumentError: the backbone returns no dict of maps.
    """
    parameters = [*backbone.parameters()]
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    # The affine parameters of a frozen norm are buffers; its statistics are no parameters, frozen or not.
    frozen = [value for name, value in backbone.named_buffers() if name.rpartition(".")[2] in ("weight", "bias")]
    total = sum(value.numel() for value in [*parameters, *frozen])
    counter = _FlopCounter()
    try:
        with torch.no_grad(), shapes_only(), counter:
            outputs = backbone.eval()(torch.empty(1, channels, *size, device="meta"))
    except ArgumentError:  # a backbone that contradicts itself
        raise
    except (RuntimeError, ValueError, AssertionError) as error:
        height, width = size
        raise InputError(f"the backbone can't run an image of {height} x {width} pixels: {error}") from error
    shapes = shapes_given(type(backbone).__name__, outputs)
    return Measures(total, trainable, counter.flops / 2e9, shapes)  # a multiply-add is two of torch's
