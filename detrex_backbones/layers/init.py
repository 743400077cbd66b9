"""Building a network whose weights a checkpoint will fill, without drawing random ones first."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["SkippedInit", "skip_random_init"]

# In-place methods of a tensor, and functions of torch.nn.init, by name.
DRAWS = {"uniform_", "normal_", "random_", "exponential_", "log_normal_", "kaiming_uniform_", "kaiming_normal_"}
# What is then done to what was drawn: a truncated normal distribution is an inverse error function, scaled and cut.
ARITHMETIC = {"erfinv_", "mul_", "add_", "sub_", "div_", "clamp_", "clip_", "clamp_min_", "clamp_max_"}
CONSTANTS = {"fill_", "zero_", "constant_", "copy_"}


class SkippedInit(TorchFunctionMode):
    """What `skip_random_init` yields: which tensors have memory, but no values yet."""

    def __init__(self) -> None:
        super().__init__()
        # Start of the memory -> a tensor in it, kept so that no other tensor gets the same memory.
        self._empty: dict[int, Tensor] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in DRAWS or name in ARITHMETIC or name in CONSTANTS:
            tensor = args[0] if args else kwargs.get("tensor")
            if isinstance(tensor, Tensor) and not tensor.is_meta and self._skips(name, tensor):
                return tensor
        return func(*args, **kwargs)

    def _skips(self, name: str, tensor: Tensor) -> bool:
        place = _memory(tensor)
        if name in DRAWS:
            self._empty[place] = tensor
        elif name in CONSTANTS and tensor.nbytes == tensor.untyped_storage().nbytes():
            self._empty.pop(place, None)
        return name not in CONSTANTS and place in self._empty

    def is_empty(self, tensor: Tensor) -> bool:
        """Whether values were to be drawn for this tensor, and weren't."""
        return _memory(tensor) in self._empty

    def move(self, model: nn.Module, device: torch.device) -> nn.Module:
        """`model.to(device)` that doesn't copy what has no values yet."""

        def moved(tensor: Tensor) -> Tensor:
            return torch.empty_like(tensor, device=device) if self.is_empty(tensor) else tensor.to(device)

        model._apply(moved)  # type: ignore[no-untyped-call]
        return model


@contextlib.contextmanager
def skip_random_init() -> Iterator[SkippedInit]:
    """Whatever is built inside gets memory for its random weights, but no values: they take most of the time.

    Constants are written as always: norms' ones and zeros, position indices, anchors. Only for a network all of whose
    parameters are loaded afterwards. For this thread alone.

    Yields:
        What knows the tensors without values.
    """
    with SkippedInit() as skipped:
        yield skipped


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
