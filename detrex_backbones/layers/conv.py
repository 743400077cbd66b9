"""A convolution together with the normalisation and activation that follow it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

__all__ = ["Conv2d"]


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` followed by an optional norm and an optional activation.

    The norm is a child named `norm`, so parameters are called `conv1.weight` and `conv1.norm.weight`, as in detectron2.
    Weights start from He et al. 2015 ("MSRA": normal, fan out, for ReLU), biases from zero.

    Args:
        *args: as of `torch.nn.Conv2d`.
        norm: the layer applied to the result, or None.
        activation: the function or module applied last, or None.
        **kwargs: as of `torch.nn.Conv2d`.
    """

    def __init__(
        self,
        *args: Any,
        norm: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.norm = norm
        self.activation = activation

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H', W')."""
        x = super().forward(x)
        if self.norm is not None:
            x = self.norm(x)
        if self.activation is not None:
            x = self.activation(x)
        return x
