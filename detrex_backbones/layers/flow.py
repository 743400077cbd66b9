"""Which norm follows which convolution in a network that wasn't written for the question: seen in a run of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["follows", "is_watched"]


def is_watched(module: nn.Module) -> bool:
    """Whether somebody has hooks on it, and so wants it called."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def follows(
    convolutions: Sequence[nn.Conv2d], norms: Sequence[nn.Module], run: Callable[[], Any]
) -> list[tuple[nn.Conv2d, nn.Module]]:
    """The pairs of which is certain that the norm is given the result of the convolution, and nothing else is.

    `run` is watched, operation by operation. Of a pair, the convolution computes with the very weight and bias of the
    module, once, and nothing else reads its weight; its result goes into the norm, once, as it is; no other operation
    reads it, and it isn't given out. The norm is called once, and neither has hooks.

    Args:
        convolutions: one without a bias is lent zeros meanwhile, which shows whether it would add one.
        norms: modules that normalise what they are given, and then may go on with the result.
        run: runs the network and returns all that it gives out: tensors, in dicts, lists and tuples.
    """
    watched = {id(module) for module in (*convolutions, *norms) if is_watched(module)}
    with _lent_biases(convolutions):
        flow = _Flow(convolutions)
        with flow.at(norms), torch.inference_mode(False), torch.no_grad(), flow:
            given = tree_leaves(run())
        if not all(isinstance(value, Tensor) for value in given):
            return []  # what else is given out can't be seen
        pairs = list(flow.pairs(given))
    return [(conv, norm) for conv, norm in pairs if not {id(conv), id(norm)} & watched]


@contextmanager
def _lent_biases(convolutions: Sequence[nn.Conv2d]) -> Iterator[None]:
    """Zeros as the bias of convolutions without one: whether a bias would be added is then seen."""
    without = [conv for conv in convolutions if conv.bias is None]
    for conv in without:
        conv.bias = nn.Parameter(conv.weight.new_zeros(conv.weight.shape[0]), requires_grad=False)
    try:
        yield
    finally:
        for conv in without:
            conv.bias = None


def _memory(tensor: Tensor) -> int:
    """What views and in-place results share with their origin."""
    return tensor.untyped_storage()._cdata  # type: ignore[no-any-return]


def _memories(values: Any) -> set[int]:
    return {_memory(value) for value in tree_leaves(values) if isinstance(value, Tensor)}


def _is(tensor: Tensor | None, own: Tensor | None) -> bool:
    """Whether it is this very tensor, and no other view of its memory."""
    if tensor is None or own is None or _memory(tensor) != _memory(own):
        return False
    same = tensor.shape == own.shape and tensor.stride() == own.stride()
    return bool(same and tensor.storage_offset() == own.storage_offset())


class _Flow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches which operations read what convolutions make."""

    def __init__(self, convolutions: Sequence[nn.Conv2d]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._owners: dict[int, list[nn.Conv2d]] = defaultdict(list)  # of a weight's memory
        for conv in convolutions:
            self._owners[_memory(conv.weight)].append(conv)
        # By the memory of a result, which is kept, so that no memory is used twice.
        self._made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
        self._takers: dict[int, list[nn.Module]] = defaultdict(list)
        self._calls: Counter[int] = Counter()  # of a convolution or norm
        self._spoiled: set[int] = set()  # results and weights that something else reads
        self._inside: list[nn.Module] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        conv = self._convolution(func, args)
        # Its own weight and bias are its to read, and what a norm is given is the norm's.
        read = _memories((args, kwargs)) if conv is None else _memories(args[0])
        if not self._inside:
            self._spoil(read)
        if conv is not None:
            self._made[_memory(result)] = conv, result
            self._calls[id(conv)] += 1
        return result

    def _convolution(self, func: Any, args: Any) -> nn.Conv2d | None:
        """The module whose weight and bias these are, if it is one alone and no transposed convolution."""
        if func.overloadpacket is not torch.ops.aten.convolution or args[6]:
            return None
        owners = self._owners.get(_memory(args[1]), [])
        if len(owners) == 1 and _is(args[1], owners[0].weight) and _is(args[2], owners[0].bias):
            return owners[0]
        return None

    @contextmanager
    def at(self, norms: Sequence[nn.Module]) -> Iterator[None]:
        """Watch these norms' calls."""
        handles = [norm.register_forward_pre_hook(self._enter, with_kwargs=True) for norm in norms]
        handles += [norm.register_forward_hook(self._leave, always_call=True) for norm in norms]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, norm: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._inside.append(norm)
        self._calls[id(norm)] += 1
        memories = _memories((args, kwargs))
        if len(memories) == 1 and len(args) == 1 and memories <= set(self._made):
            (memory,) = memories
            if _is(args[0], self._made[memory][1]):
                self._takers[memory].append(norm)
                return
        self._spoil(memories)

    def _leave(self, norm: nn.Module, args: Any, result: Any) -> None:
        self._inside.pop()
        # One that gives out the memory that it was given has no result of its own.
        self._spoil(_memories(result))

    def _spoil(self, memories: set[int]) -> None:
        # Of all others the memory may be given back, and become that of a result.
        self._spoiled |= {memory for memory in memories if memory in self._made or memory in self._owners}

    def pairs(self, given: Sequence[Tensor]) -> Iterator[tuple[nn.Conv2d, nn.Module]]:
        """What is certain after a run that gave this out."""
        spoiled = self._spoiled | _memories(given)
        for memory, (conv, _) in self._made.items():
            takers = self._takers[memory]
            if len(takers) == 1 and not {memory, _memory(conv.weight)} & spoiled:
                norm = takers[0]
                if self._calls[id(conv)] == self._calls[id(norm)] == 1:
                    yield conv, norm
