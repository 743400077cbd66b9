"""A network on the meta device, run for its shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["NoFirstValues", "ShapesOnly"]

# What gives a tensor of the shape and the dtype of its first argument. On the meta device torch does them in Python, in
# functions that import `torch._dynamo`, which takes longer than all the rest.
SAME_SHAPE = {"batch_norm", "layer_norm", "group_norm", "gelu", "silu", "hardswish", "hardsigmoid", "softmax", "mish"}


class ShapesOnly(TorchFunctionMode):
    """Inside, such functions of meta tensors give an empty tensor at once."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        given = args[0] if args else kwargs.get("input")
        if isinstance(given, Tensor) and given.is_meta and getattr(func, "__name__", "") in SAME_SHAPE:
            return torch.empty_like(given)
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
