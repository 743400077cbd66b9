"""The receptive field of every map: which input pixels a pixel of it can depend on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from detrex_backbones.backbones.shapes_only import shapes_only

__all__ = ["GLOBAL", "UNKNOWN", "WINDOWS", "Field", "follow", "receptive_fields"]

GLOBAL, WINDOWS, UNKNOWN = "whole image", "attention windows", "not known"

# What sees all positions at once. A batch norm in evaluation does not; these do.
WHOLE = {"group_norm", "instance_norm", "adaptive_avg_pool2d", "adaptive_max_pool2d", "fft2", "rfft2", "fft", "rfft"}
RESIZED = {"interpolate", "conv_transpose2d", "grid_sample", "pixel_shuffle", "pixel_unshuffle"}
POOLS = {"max_pool2d", "_max_pool2d", "avg_pool2d", "max_pool2d_with_indices", "lp_pool2d"}
ATTENTION = {"scaled_dot_product_attention", "matmul", "__matmul__", "bmm", "einsum"}
MEANS = {"mean", "sum", "norm", "amax", "std", "var", "linalg_vector_norm"}


@dataclass(frozen=True)
class Field:
    """Position i of a map depends on input rows i * step + low ... i * step + high, at the most.

    Args:
        low: of position 0.
        high: of position 0; infinite where it is all of the image.
        step: input rows between two positions; NaN where that has not been followed.
        windows: attention within windows was on the way.
        middle: the row that position 0 lies at, also where it depends on all of them.
    """

    low: float = 0.0
    high: float = 0.0
    step: float = 1.0
    windows: bool = False
    middle: float = 0.0

    def slide(self, kernel: int, stride: int, padding: int, dilation: int) -> Field:
        """After a convolution or a pool."""
        middle = self.middle + (dilation * (kernel - 1) / 2 - padding) * self.step
        if math.isinf(self.high) or math.isnan(self.step):  # there is nothing to widen
            return replace(self, step=self.step * stride, middle=middle)
        low = self.low - padding * self.step
        high = self.high + (dilation * (kernel - 1) - padding) * self.step
        return replace(self, low=low, high=high, step=self.step * stride, middle=middle)

    def all_rows(self) -> Field:
        """After what sees all positions."""
        return replace(self, low=-math.inf, high=math.inf)

    def centre(self, stride: float) -> float:
        """The input row that position 0 of a map of this stride lies at; the middle of its cell if not known."""
        return self.middle if self.step == stride else (stride - 1) / 2

    def describe(self, stride: float) -> int | str:
        """Its length in pixels, or what stands for it, of a map of this stride."""
        if math.isinf(self.high):
            return GLOBAL
        if self.windows:
            return WINDOWS
        # Rows that went into the channels, or were left out by slicing, have not been followed.
        return int(self.high - self.low) + 1 if self.step == stride else UNKNOWN


def receptive_fields(
    backbone: nn.Module, size: tuple[int, int], strides: Mapping[str, float], channels: int = 3
) -> dict[str, int | str]:
    """The theoretical receptive field of every map, in input pixels along the height.

    It is worked out, not measured: every operation is followed, and each map carries the range of rows that it depends
    on. Branches give the hull of their ranges, convolutions and pools widen it. Deformable convolutions count with
    their grid unmoved. Global pooling (squeeze-excitation), norms over positions and attention over all tokens make it
    the whole image.

    Args:
        backbone: on the meta device, in evaluation mode.
        size: height and width of the image in pixels.
        strides: name of a map -> its stride.
        channels: of the image.

    Returns:
        name -> pixels, "whole image", "attention windows" (bounded by them, and more than any convolution's) or
        "not known", where the network has an operation that can't be followed.
    """
    with torch.no_grad(), shapes_only():
        fields = follow(backbone, torch.empty(1, channels, *size, device="meta"))[1]
    return {name: fields[name].describe(stride) if name in fields else UNKNOWN for name, stride in strides.items()}


def follow(backbone: nn.Module, image: Tensor) -> tuple[dict[str, Tensor], dict[str, Field]]:
    """Run a backbone on a batch of one image.

    Returns:
        Its maps, and the field of each that could be followed.
    """
    image._field = Field()  # type: ignore[attr-defined]
    with _Follow():
        maps = backbone(image)
    return maps, {name: value._field for name, value in maps.items() if hasattr(value, "_field")}


class _Follow(TorchFunctionMode):
    """Hangs a `Field` on every tensor that depends on the image."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        fields = [value._field for value in _tensors([*args, *kwargs.values()]) if hasattr(value, "_field")]
        result = func(*args, **kwargs)
        if fields:
            name = getattr(func, "__name__", str(func)).rpartition(".")[2]
            field = _after(name, _hull(fields), args, kwargs)
            for value in _tensors([result]):
                value._field = field
        return result


def _tensors(values: Any) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


def _hull(fields: list[Field]) -> Field:
    low, high = min(field.low for field in fields), max(field.high for field in fields)
    steps = {field.step for field in fields}
    middles = [field.middle for field in fields]
    step = steps.pop() if len(steps) == 1 else math.nan
    return Field(low, high, step, any(field.windows for field in fields), (min(middles) + max(middles)) / 2)


def _after(name: str, field: Field, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Field:
    if name == "conv2d":
        return _after_convolution(field, args, kwargs)
    if name == "deform_conv2d":  # the operator: image, weight, offset, mask, bias, strides, paddings, dilations
        moved = [value._field for value in args[2:4] if hasattr(value, "_field")]
        return _hull([args[0]._field.slide(args[1].shape[-2], args[5], args[7], args[9]), *moved])
    if name in POOLS:
        kernel = _first(_argument(args, kwargs, 1, "kernel_size"))
        stride = _first(_argument(args, kwargs, 2, "stride") or kernel)
        place = 4 if name == "lp_pool2d" else 3
        dilation = _argument(args, kwargs, 4, "dilation") if "max" in name else 1
        return field.slide(
            kernel, stride, _first(_argument(args, kwargs, place, "padding") or 0), _first(dilation or 1)
        )
    if name == "pad" and len(_argument(args, kwargs, 1, "pad")) >= 4:
        return field.slide(1, 1, _argument(args, kwargs, 1, "pad")[2], 1)
    if name in RESIZED:
        return replace(field, step=math.nan)
    if name in WHOLE or (name in MEANS and _over_positions(args, kwargs)):
        return field.all_rows()
    if name in ATTENTION and all(hasattr(value, "_field") for value in _tensors(args)[:2]):
        return _after_attention(field, _tensors(args)[0])
    return field


def _after_convolution(field: Field, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Field:
    kernel = _argument(args, kwargs, 1, "weight").shape[-2]
    stride = _first(_argument(args, kwargs, 3, "stride") or 1)
    padding = _argument(args, kwargs, 4, "padding") or 0
    dilation = _first(_argument(args, kwargs, 5, "dilation") or 1)
    if isinstance(padding, str):
        padding = dilation * (kernel - 1) // 2 if padding == "same" else 0
    return field.slide(kernel, stride, _first(padding), dilation)


def _after_attention(field: Field, queries: Tensor) -> Field:
    # One image went in: a larger batch is one of windows. What was within reach before stays so.
    if queries.dim() >= 3 and queries.shape[0] > 1:
        return replace(field, windows=True)
    return field.all_rows()


def _over_positions(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a mean is over height and width, not over channels."""
    dims = _argument(args, kwargs, 1, "dim") if isinstance(args[0], Tensor) else None
    if dims is None:
        return True
    return isinstance(dims, list | tuple) and len(dims) > 1


def _argument(args: Sequence[Any], kwargs: Mapping[str, Any], place: int, name: str) -> Any:
    return args[place] if len(args) > place else kwargs.get(name)


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, list | tuple) else value)
