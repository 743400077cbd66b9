"""What a backbone costs and gives, without allocating its weights."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detrex_backbones.backbones.base import Backbone
from detrex_backbones.errors import InputError

__all__ = ["Measures", "measure"]


@dataclass(frozen=True)
class Measures:
    """The figures of one backbone.

    Args:
        parameters: how many numbers it has, frozen ones and those of frozen norms not left out.
        trainable: how many of them get gradients.
        gflops: billions of multiply-adds for one image, as fvcore counts them.
        shapes: name -> (C, H, W) of every map for that image.
    """

    parameters: int
    trainable: int
    gflops: float
    shapes: dict[str, tuple[int, ...]]


def measure(backbone: Backbone, size: tuple[int, int], channels: int = 3) -> Measures:
    """Count parameters and multiply-adds, and see which shapes come out.

    Args:
        backbone: built on the meta device: `with torch.device("meta"): ...`. Of no use afterwards.
        size: height and width of the image in pixels.
        channels: of the image.

    Raises:
        InputError: an image of this size can't be run.
    """
    parameters = [*backbone.parameters()]
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    # The affine parameters of a frozen norm are buffers; its statistics are no parameters, frozen or not.
    frozen = [value for name, value in backbone.named_buffers() if name.rpartition(".")[2] in ("weight", "bias")]
    total = sum(value.numel() for value in [*parameters, *frozen])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of every branch on a shape, and of its own age
        from fvcore.nn import FlopCountAnalysis

        try:
            outputs = backbone.eval()(torch.empty(1, channels, *size, device="meta"))
        except (RuntimeError, ValueError, AssertionError) as error:
            height, width = size
            raise InputError(f"the backbone can't run an image of {height} x {width} pixels: {error}") from error
        shapes = {name: tuple(value.shape[1:]) for name, value in outputs.items()}
        _fill_with_views_of_one_zero(backbone)
        flops = FlopCountAnalysis(backbone, (torch.zeros(()).expand(1, channels, *size),))
        total_flops = flops.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()
    return Measures(total, trainable, total_flops / 1e9, shapes)


def _fill_with_views_of_one_zero(module: nn.Module) -> None:
    # fvcore traces, which the meta device can't: every tensor becomes a view of a single number, with strides of 0.
    def zeros(like: Tensor) -> Tensor:
        return torch.zeros((), dtype=like.dtype).expand(like.shape)

    for child in module.modules():
        for name, parameter in child._parameters.items():
            if parameter is not None:
                child._parameters[name] = nn.Parameter(zeros(parameter), requires_grad=False)
        for name, buffer in child._buffers.items():
            if buffer is not None:
                child._buffers[name] = zeros(buffer)
