"""Activation checkpointing: memory for time (Chen et al. 2016)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from detrex_backbones.errors import ArgumentError

__all__ = ["check_stages", "recompute_modules", "run_recomputed"]


def check_stages(checkpoint_stages: Any, stages: Sequence[str]) -> tuple[str, ...]:
    """The names of the stages that are computed again, of those that the network has: all for True, none for False.

    Raises:
        ArgumentError: another name, or neither a list nor True nor False.
    """
    if isinstance(checkpoint_stages, bool):
        return tuple(stages) if checkpoint_stages else ()
    listed = isinstance(checkpoint_stages, Sequence) and not isinstance(checkpoint_stages, str)
    if not listed or not all(name in stages for name in checkpoint_stages):
        raise ArgumentError(
            f"checkpoint_stages={checkpoint_stages!r} is not allowed: True, False or a list of the stages that the "
            f"network has: {', '.join(stages) or 'none'}."
        )
    return tuple(checkpoint_stages)


def run_recomputed(stage: nn.Module, *args: Any, forward: Callable[..., Any] | None = None, **kwargs: Any) -> Any:
    """`stage(...)` that keeps nothing but its inputs for the backward pass, and computes the rest again there.

    The result, the gradients and the running statistics are those of `stage(...)`. `forward` is what to call in its
    place.
    """
    learning = [module for module in stage.modules() if isinstance(module, _BatchNorm) and module.training]
    if learning:
        kwargs["context_fn"] = lambda: (contextlib.nullcontext(), _on_copies(learning))
    return checkpoint(forward or stage, *args, use_reentrant=False, **kwargs)


def recompute_modules(net: nn.Module, names: Iterable[str]) -> None:
    """Let these modules of a network compute their activations again in the backward pass; no name is changed."""
    for name in names:
        module: Any = net.get_submodule(name)
        module.forward = _Recomputed(module)


class _Recomputed:
    """The `forward` of a module that is recomputed. Copies of the module have one of their own."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        forward = type(self.module).forward.__get__(self.module)
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return run_recomputed(self.module, *args, forward=forward, **kwargs)


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
