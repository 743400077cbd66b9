"""Building a network whose weights a checkpoint will fill, without drawing random ones first."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
# What gives values to Python, which may act on them, as the rejection in torch's trunc_normal_ does.
READS = {"__bool__", "__int__", "__float__", "__index__", "item", "tolist", "numpy", "__array__", "equal", "allclose"}
WITHOUT_VALUES = {"__get__", "__set__", "requires_grad_", "detach_"}  # neither read nor write what a tensor holds


class SkippedInit(TorchFunctionMode):
    """What `skip_random_init` yields: which tensors have memory but no values yet, and the way to make up for it."""

    def __init__(self) -> None:
        super().__init__()
        # Start of the memory -> a tensor in it, kept so that no other tensor gets the same memory.
        self._empty: dict[int, Tensor] = {}  # as it is now
        self._skipped: dict[int, Tensor] = {}  # once, or made of what was
        # Whatever was done to such memory, in order, with its result.
        self._steps: list[Any] = []
        self._moved: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        target: Any = args[0] if args else kwargs.get("tensor")
        is_own = isinstance(target, Tensor) and not target.is_meta
        if is_own and (name in DRAWS or (name in ARITHMETIC and self.is_empty(target))):
            self._skipped[_memory(target)] = self._empty[_memory(target)] = target
            self._record(func, args, kwargs, None)
            return target
        if name in READS and any(self.is_empty(tensor) for tensor in _tensors((args, kwargs))):
            self.draw()
        result = func(*args, **kwargs)
        if name not in WITHOUT_VALUES and self._skipped:
            self._follow(func, args, kwargs, result, target)
        return result

    def _follow(self, func: Any, args: Any, kwargs: Any, result: Any, target: Any) -> None:
        """Record what was done with memory whose draws were skipped, and what was made of it."""
        name = getattr(func, "__name__", "")
        given = _tensors((args, kwargs))
        if not any(_memory(tensor) in self._skipped for tensor in given):
            return
        writes = name == "__setitem__" or "out" in kwargs or result is target
        made = _tensors(result) + ([target] if name == "__setitem__" else [])
        places = {_memory(tensor) for tensor in given}
        if not writes and all(_memory(tensor) in places for tensor in made):
            return  # a view, or no tensor at all
        is_whole = (
            name in CONSTANTS and isinstance(target, Tensor) and target.nbytes == target.untyped_storage().nbytes()
        )
        is_empty = any(self.is_empty(tensor) for tensor in given if not (is_whole and tensor is target))
        for tensor in made:
            self._skipped[_memory(tensor)] = tensor
            if is_empty:
                self._empty[_memory(tensor)] = tensor
            elif is_whole:
                self._empty.pop(_memory(tensor), None)
        self._record(func, args, kwargs, result)

    def _record(self, *step: Any) -> None:
        # Aliases: a parameter that is moved stands for its new memory from then on.
        self._steps.append(_aliases(step))

    def is_empty(self, tensor: Tensor) -> bool:
        """Whether values were to be drawn for this tensor, and weren't."""
        return _memory(tensor) in self._empty

    def move(self, model: nn.Module, device: torch.device) -> nn.Module:
        """`model.to(device)` that doesn't copy what has no values yet."""

        def moved(tensor: Tensor) -> Tensor:
            if tensor.device == device or not self.is_empty(tensor):
                return tensor.to(device)
            new = torch.empty_like(tensor, device=device)
            self._moved.append((tensor.detach(), new))
            if not new.is_meta:
                self._empty[_memory(new)] = new
            return new

        model._apply(moved)  # type: ignore[no-untyped-call]
        return model

    @torch.no_grad()
    def draw(self, filled: Iterable[Tensor] = ()) -> None:
        """Make up for what was skipped, in the same order.

        Args:
            filled: tensors that have got values in the meantime, and keep them. For these nothing is drawn, unless
                another tensor was made of what they would have had. Without any, a seed gives what it always gives.
        """
        filled = list(filled)
        places = _whole_memory(filled)
        places |= {_memory(old) for old, new in self._moved if _memory(new) in places}
        steps, changed = self._leading_to(self._skipped.keys() - places)
        kept = [(tensor, tensor.clone()) for tensor in filled if _memory(tensor) in changed]
        for func, args, kwargs, result in steps:
            again = func(*args, **kwargs)
            for old, new in zip(_tensors(result), _tensors(again) if _tensors(result) else [], strict=True):
                if _memory(old) != _memory(new):
                    old.copy_(new)
        for tensor, values in kept:
            tensor.copy_(values)
        for old, new in self._moved:
            if _memory(new) not in places:
                new.copy_(old)
        for done in (self._steps, self._moved, self._skipped, self._empty):
            done.clear()

    def _leading_to(self, wanted: set[int]) -> tuple[list[Any], set[int]]:
        """The steps that the values in this memory come from, in order, and all memory that these steps change."""
        wanted, changed, steps = set(wanted), set(), []
        for step in reversed(self._steps):
            _, args, kwargs, result = step
            given = {_memory(tensor) for tensor in _tensors((args, kwargs))}
            written = {_memory(tensor) for tensor in _tensors((args[:1], kwargs.get("tensor"), result))}
            if written & wanted:
                steps.append(step)
                wanted |= given
                changed |= written
        return steps[::-1], changed


@contextlib.contextmanager
def skip_random_init() -> Iterator[SkippedInit]:
    """Whatever is built inside gets memory for its random weights, but no values: they take most of the time.

    Constants are written as always: norms' ones and zeros, position indices, anchors. Where the building code reads a
    value that was skipped, everything up to there is drawn after all. For this thread alone.

    Yields:
        What knows the tensors without values, for a network not all of whose parameters are loaded afterwards.
    """
    with SkippedInit() as skipped:
        yield skipped


def _tensors(values: Any) -> list[Tensor]:
    """Those that stand in it, or in tuples, lists and dicts in it; faster than `tree_leaves`, which matters here."""
    if isinstance(values, Tensor):
        return [] if values.is_meta else [values]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, tuple | list):
        return []
    return [tensor for value in values for tensor in _tensors(value)]


def _aliases(values: Any) -> Any:
    """The same with other tensors of the same memory."""
    if isinstance(values, Tensor):
        return values.detach()
    if isinstance(values, tuple | list):
        return [_aliases(value) for value in values]
    return {key: _aliases(value) for key, value in values.items()} if isinstance(values, dict) else values


def _whole_memory(tensors: Iterable[Tensor]) -> set[int]:
    """The memory of tensors, as far as they are all that stands in it."""
    held: Counter[int] = Counter()
    sizes: dict[int, int] = {}
    for tensor in {(_memory(tensor), tensor.storage_offset()): tensor for tensor in tensors}.values():
        held[_memory(tensor)] += tensor.nbytes
        sizes[_memory(tensor)] = tensor.untyped_storage().nbytes()
    return {place for place, size in sizes.items() if held[place] >= size}


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
