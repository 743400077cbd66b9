"""Activation checkpointing: memory for time (Chen et al. 2016)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

__all__ = ["run_recomputed"]


def run_recomputed(stage: nn.Module, x: Tensor, *args: Any) -> Tensor:
    """`stage(x, ...)` that keeps nothing but its inputs for the backward pass, and computes the rest again there.

    The result, the gradients and the running statistics are those of `stage(x, ...)`. It returns one tensor.
    """
    learning = [module for module in stage.modules() if isinstance(module, _BatchNorm) and module.training]
    kwargs: dict[str, Any] = {}
    if learning:
        kwargs["context_fn"] = lambda: (contextlib.nullcontext(), _on_copies(learning))
    return checkpoint(stage, x, *args, use_reentrant=False, **kwargs)  # type: ignore[no-any-return]


@contextlib.contextmanager
def _on_copies(norms: list[_BatchNorm]) -> Iterator[None]:
    """Let the norms update copies of their running statistics: the first pass has counted the batch."""
    before = [norm._buffers for norm in norms]
    for norm in norms:
        norm._buffers = {name: value if value is None else value.clone() for name, value in norm._buffers.items()}
    try:
        yield
    finally:
        for norm, buffers in zip(norms, before, strict=True):
            norm._buffers = buffers
