"""What the convolutional networks of the YOLO and RT-DETR families are made of: convolution, norm and activation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from detrex_backbones.errors import ArgumentError, closest
from detrex_backbones.layers.norm import Norm, get_norm

__all__ = ["ConvNormAct", "activation"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"silu": nn.SiLU, "relu": nn.ReLU, "gelu": nn.GELU}


class ConvNormAct(nn.Sequential):
    """A convolution without bias that keeps H and W but for its stride, a norm and an activation: `conv`, `bn`, `act`.

    Args:
        in_channels: C of the input (N, C, H, W).
        out_channels: C of the result.
        kernel_size: odd, in pixels.
        stride: of the convolution.
        groups: of the convolution.
        norm: see `get_norm`.
        eps: of the norm.
        act: makes the activation; None for none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        norm: Norm = "BN",
        eps: float = 1e-5,
        act: Callable[[], nn.Module] | None = nn.SiLU,
    ) -> None:
        padding = kernel_size // 2
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
        layers = OrderedDict[str, nn.Module](conv=conv)
        made = get_norm(norm, out_channels)
        if made is not None:
            made.eps = eps  # type: ignore[assignment]
            layers["bn"] = made
        if act is not None:
            layers["act"] = act()
        super().__init__(layers)


def activation(name: str) -> Callable[[], nn.Module]:
    """What makes the activation of a name that configs have; ArgumentError for another one."""
    if name not in ACTIVATIONS:
        raise ArgumentError(
            f"act={name!r} is not known. Allowed: {', '.join(map(repr, ACTIVATIONS))}.{closest(str(name), ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]
