"""Modules with loading code of their own (hooks, `_load_from_state_dict`, an extra state): finding and running it.

It renames keys of older files, takes shapes from the file, or keeps what is no tensor. Nobody knows what it makes of a
file but itself: it's run once on copies of the module's tensors, to learn that, and once more for good.
"""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from detrex_backbones.checkpoint.interrupts import interrupts_wait
from detrex_backbones.checkpoint.read.nested import put_in

__all__ = [
    "Snapshot",
    "Task",
    "Trial",
    "inside_of",
    "loading_modules",
    "run_task",
    "same_tensor",
    "tensors_of",
    "try_task",
]

COPYING = ("torch.nn.modules.", "detrex_backbones.")  # whose classes only copy, apart from hooks
SHARDING = "torch.distributed."  # whose hooks change nothing of a file


def loading_modules(root: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The outermost modules with loading code of their own, each with what stands before its keys: "", "fpn."."""
    if type(root).load_state_dict is not nn.Module.load_state_dict:
        yield "", root
    else:
        yield from _loading(root, "")


def _loading(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    hooks = module._load_state_dict_pre_hooks or module._load_state_dict_post_hooks
    if _has_own_code(type(module)) or (hooks and _has_own_hooks(module)):
        yield path, module
        return
    for name, child in module._modules.items():
        if child is not None:
            yield from _loading(child, f"{path}{name}.")


def _has_own_code(kind: type[nn.Module]) -> bool:
    copies = kind._load_from_state_dict.__module__.startswith(COPYING)
    return not copies or kind.set_extra_state is not nn.Module.set_extra_state


def _has_own_hooks(module: nn.Module) -> bool:
    for hook in (*module._load_state_dict_pre_hooks.values(), *module._load_state_dict_post_hooks.values()):
        inner = getattr(hook, "hook", hook)  # torch wraps those that are to be given the module
        if not str(getattr(inner, "__module__", "")).startswith(SHARDING):
            return True
    return False


@dataclass
class Task:
    """What a module is to load by itself.

    Args:
        path: what stands before its keys in the model.
        structure: key behind the path -> extra state, or what stands for a tensor; see `read.nested`.
        values: the tensors of the file that stand in it, not to be written to.
        metadata: path of a module within -> its versions, as torch's state dicts have them.
        gives: model key -> whether its value is as it is in the file, for all that the module gave a value.
        beyond: whether it did more than giving values to tensors of the model's shapes.
    """

    path: str
    structure: dict[str, Any]
    values: dict[str, Tensor]
    metadata: dict[str, dict[str, Any]]
    gives: dict[str, bool] = field(default_factory=dict)
    beyond: bool = False


@dataclass(frozen=True)
class Trial:
    """What a module made of a state: each key is one of its state dict's.

    Args:
        before: tensors that it had.
        after: tensors that it has then.
        missing: keys that it would have had a value for.
        unexpected: keys of the state that it has no use for.
    """

    before: dict[str, Tensor]
    after: dict[str, Tensor]
    missing: set[str]
    unexpected: set[str]


def run_task(module: nn.Module, task: Task) -> tuple[list[str], list[str]]:
    """Have a module load by itself. What was missing and what was unexpected, as torch gives it."""
    state = OrderedDict(put_in(task.structure, {name: value.clone() for name, value in task.values.items()}))
    state._metadata = copy.deepcopy(task.metadata)  # type: ignore[attr-defined]
    found = module.load_state_dict(state, strict=False)
    return (found.missing_keys, found.unexpected_keys) if found else ([], [])


def try_task(module: nn.Module, task: Task) -> Trial:
    """What would become of it. The module is as it was afterwards, whatever happens."""
    with interrupts_wait(), torch.no_grad(), torch.random.fork_rng(devices=()):
        snapshot = Snapshot(module)
        try:
            snapshot.put_copies()
            before = {name: value.clone() for name, value in tensors_of(module).items()}
            missing, unexpected = run_task(module, task)
            after = tensors_of(module)
        finally:
            snapshot.restore()
    return Trial(before, after, set(missing), set(unexpected))


def inside_of(path: str, names: list[str]) -> list[str]:
    """Those of sorted names that start with a path, which is "" or ends with a dot."""
    return names[bisect_left(names, path) : bisect_left(names, f"{path[:-1]}/")] if path else names


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """What a module's state dict has of tensors with a shape."""
    state = module.state_dict().items()
    return {name: value for name, value in state if isinstance(value, Tensor) and not is_lazy(value)}


class Snapshot:
    """A module as it is: its attributes, what its lists and dicts hold, and those of all modules in it.

    Args:
        module: to be restored.
        values: whether the numbers of its tensors are kept too.
    """

    def __init__(self, module: nn.Module, *, values: bool = False) -> None:
        modules = list(module.modules())
        self._attributes = [(inner, dict(vars(inner))) for inner in modules]
        self._containers = [
            (held, held.copy())
            for inner in modules
            for held in vars(inner).values()
            if type(held) in (dict, OrderedDict, list, set)
        ]
        tensors = {id(value): value for held in self._holders() for value in held.values() if isinstance(value, Tensor)}
        self._values = [
            (value, type(value), value.data if is_lazy(value) else value.detach().clone())
            for value in (tensors.values() if values else ())
        ]

    def _holders(self) -> Iterator[dict[str, Any]]:
        for module, _ in self._attributes:
            yield from (module._parameters, module._buffers, vars(module))

    def put_copies(self) -> None:
        """Have copies in the place of the module's tensors, until it's restored."""
        made: dict[int, Tensor] = {}
        for held in self._holders():
            for name, value in held.items():
                if isinstance(value, Tensor):
                    if id(value) not in made:
                        made[id(value)] = _copy_of(value)
                    held[name] = made[id(value)]

    def restore(self) -> None:
        """Make the module what it was."""
        for module, attributes in self._attributes:
            vars(module).clear()
            vars(module).update(attributes)
        for held, content in self._containers:
            held.clear()
            held.extend(content) if isinstance(held, list) else held.update(content)
        for value, kind, numbers in self._values:
            if type(value) is kind and is_lazy(value):
                continue
            if type(value) is not kind or value.shape != numbers.shape:
                value.data = numbers
                value.__class__ = kind
            else:
                value.detach().copy_(numbers)


def _copy_of(value: Tensor) -> Tensor:
    """The same in memory of its own; on the CPU and without its numbers where this process doesn't have all of it."""
    if is_lazy(value):
        kind: Any = type(value)
        device = "cpu" if value.device.type == "meta" else value.device
        return kind(value.requires_grad, device, value.dtype)  # type: ignore[no-any-return]
    if value.is_meta or hasattr(value, "placements"):
        whole = torch.zeros(value.shape, dtype=value.dtype)
        return nn.Parameter(whole, value.requires_grad) if isinstance(value, nn.Parameter) else whole
    return copy.deepcopy(value) if value.is_leaf else value.detach().clone()


def same_tensor(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same once the first is cast to the other's dtype; NaN equals itself."""
    if one.shape != other.shape:
        return False
    cast = one.to(other.device, other.dtype)
    if torch.equal(cast, other):
        return True
    return other.is_floating_point() and torch.allclose(cast.double(), other.double(), rtol=0, atol=0, equal_nan=True)
