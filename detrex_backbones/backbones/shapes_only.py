"""A network on the meta device, run for its shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["EagerMode", "NoFirstValues", "shapes_only"]

# What gives a tensor of the shape and the dtype of its first argument. On the meta device torch does them in Python, in
# functions that import `torch._dynamo`, which takes longer than all the rest.
SAME_SHAPE = {
    *("batch_norm", "layer_norm", "group_norm", "softmax"),
    *("gelu", "silu", "hardswish", "hardsigmoid", "mish", "add_", "__iadd__"),
}


@contextmanager
def shapes_only() -> Iterator[None]:
    """Inside, meta tensors go through networks by the shortest way. A mode that counts operators is entered later."""
    with _SameShapes(), _Windows():  # type: ignore[no-untyped-call,unused-ignore]
        yield


class _SameShapes(TorchFunctionMode):
    """Inside, the functions above give an empty tensor at once."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        given = args[0] if args else kwargs.get("input")
        if isinstance(given, Tensor) and given.is_meta and getattr(func, "__name__", "") in SAME_SHAPE:
            return given.new_empty(given.shape)  # `empty_like` imports sympy
        return func(*args, **kwargs)


# What gives a parameter its first value in place.
FIRST_VALUES = {"uniform_", "normal_", "erfinv_", "clamp_"}


class NoFirstValues(TorchFunctionMode):
    """Inside, giving first values to meta tensors, which have none, costs nothing."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in FIRST_VALUES and args and isinstance(args[0], Tensor) and args[0].is_meta:
            return args[0]
        return func(*args, **dict(kwargs or {}))


def _convolved(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    if transposed or weight.shape[1] * groups != x.shape[1]:
        parts = (stride, padding, dilation, transposed, output_padding, groups)
        return torch.ops.aten.convolution.default(x, weight, bias, *parts)  # type: ignore[no-any-return]
    return x.new_empty(len(x), len(weight), *_sides(x, weight.shape[2:], stride, padding, dilation))


def _max_pooled(
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    if ceil_mode or x.dim() != 4:
        found: tuple[Tensor, Tensor] = torch.ops.aten.max_pool2d_with_indices.default(
            x, kernel_size, stride, padding, dilation, ceil_mode
        )
        return found
    size = (*x.shape[:2], *_sides(x, kernel_size, stride or kernel_size, padding, dilation))
    return x.new_empty(size), x.new_empty(size, dtype=torch.long)


def _sides(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """How many windows there are in each direction. One number may stand for all directions."""
    axes = range(len(x.shape) - 2)
    of_kernel, step, beside, spread = (
        list(part) * (len(axes) // len(part)) for part in (kernel, stride, padding, dilation)
    )
    sides = [(x.shape[2 + a] + 2 * beside[a] - spread[a] * (of_kernel[a] - 1) - 1) // step[a] + 1 for a in axes]
    if min(sides) < 1:
        raise RuntimeError(f"a window of {tuple(of_kernel)} does not fit into a map of {tuple(x.shape[2:])}")
    return sides


# Operators -> what gives empty results of the same shapes. torch's own ways import sympy, which takes longer than a
# network of convolutions.
WINDOWED: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.convolution.default: _convolved,
    torch.ops.aten.max_pool2d_with_indices.default: _max_pooled,
}


class EagerMode(TorchDispatchMode):  # type: ignore[no-untyped-call,unused-ignore]
    """A mode in which nothing is compiled."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True makes torch import its compiler to say so


class _Windows(EagerMode):  # type: ignore[no-untyped-call,unused-ignore]
    """Inside, these operators are done so."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return WINDOWED.get(func, func)(*args, **(kwargs or {}))
