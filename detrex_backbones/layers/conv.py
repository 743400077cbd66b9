"""A convolution together with the normalisation and activation that follow it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from detrex_backbones.layers.frozen_batch_norm import FrozenBatchNorm2d
from detrex_backbones.layers.norm import Norm, get_norm

__all__ = ["Conv2d", "conv_norm", "is_watched", "standardised"]


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` followed by an optional norm and an optional activation.

    The norm is a child named `norm`, so parameters are called `conv1.weight` and `conv1.norm.weight`, as in detectron2.
    Weights start from He et al. 2015 ("MSRA": normal, fan out, for ReLU), biases from zero.

    With `weight_standardization = True`, set on the layer, each filter is convolved with its weights less their mean,
    over their standard deviation plus 1e-5 (Qiao et al. 2019, as its authors' code and OpenMMLab's `ConvWS` have it).

    Args:
        *args: as of `torch.nn.Conv2d`.
        norm: the layer applied to the result, or None.
        activation: the function or module applied last, or None.
        **kwargs: as of `torch.nn.Conv2d`.
    """

    weight_standardization = False

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
        weight, bias, norm = self._weights()
        return self._finish(self._conv_forward(x, weight, bias), norm)

    def _weights(self) -> tuple[Tensor, Tensor | None, nn.Module | None]:
        """Weight and bias to convolve with, and the norm that is then still to be applied.

        Where the weights learn and the norm doesn't, the norm is folded into them at every step: the map is not passed
        over twice. Otherwise nothing is to be gained that doesn't need a copy of the weights, which could be outdated:
        `fuse_norms` makes one for good.
        """
        norm = self.norm
        if self.weight_standardization:
            return standardised(self.weight), self.bias, norm
        learns = self.weight.requires_grad and torch.is_grad_enabled()
        if learns and type(norm) is FrozenBatchNorm2d and not is_watched(norm):
            return *norm.fold(self.weight, self.bias), None
        return self.weight, self.bias, norm

    def _finish(self, x: Tensor, norm: nn.Module | None) -> Tensor:
        if norm is not None:
            x = norm(x)
        if self.activation is not None:
            x = self.activation(x)
        return x


def standardised(weight: Tensor) -> Tensor:
    """Weights (filters, ...) of mean 0 and standard deviation about 1 in each filter."""
    filters = weight.flatten(1)
    deviation, mean = torch.std_mean(filters, 1, keepdim=True)
    return ((filters - mean) / (deviation + 1e-5)).view_as(weight)


def is_watched(module: nn.Module) -> bool:
    """Whether somebody has hooks on it, and so wants it called."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    norm: Norm,
    *,
    stride: int = 1,
    dilation: int = 1,
    conv_class: type[Conv2d] = Conv2d,
    **kwargs: Any,
) -> Conv2d:
    """A convolution without bias, of an odd kernel size, that keeps H and W but for its stride; then the norm."""
    kwargs |= {"stride": stride, "padding": dilation * (kernel_size // 2), "dilation": dilation, "bias": False}
    return conv_class(in_channels, out_channels, kernel_size, norm=get_norm(norm, out_channels), **kwargs)
