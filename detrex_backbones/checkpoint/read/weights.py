"""Where in a file the weights are: every trainer wraps them in mappings of its own, so they are searched for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detrex_backbones.checkpoint.read.records import Call, told
from detrex_backbones.checkpoint.read.source import DamagedError
from detrex_backbones.checkpoint.read.stored import GivenTensor, LazyTensor, OtherTensor

__all__ = ["DEPTH", "Weights", "as_text", "find_weights", "is_tensor", "tensors_in", "without"]

TENSORS = (LazyTensor, Tensor)
DEPTH = 4  # mappings and lists around weights
Steps = tuple[Any, ...]  # keys of mappings and numbers of lists, from the top
MOST = 16  # mappings with tensors that are told of, the largest: an optimiser of an unknown kind can have thousands

# Words of a path that mark averaged weights. Trainers that keep these beside the others evaluate with them: DINO with
# its teacher; timm, DeiT, torchvision and RT-DETR with what they call ema.
AVERAGED = {"ema", "swa", "teacher", "averaged", "averages"}
# Except these. ema_state: detrex and d2go evaluate with `model`, pycls with the better of the two.
# ema_state_dict: OpenMMLab's `state_dict` holds the averages, and this what they were made of; so does Lightning's.
SECOND = {"ema_state", "ema_state_dict", "current_model_state"}
# The key of an optimiser's state.
OPTIMIZER = re.compile("(?<![a-z])[Oo]ptim(i[sz]er)?s?(?![a-z])")


@dataclass(frozen=True)
class Weights:
    """A mapping in a file that holds tensors.

    Args:
        steps: the keys that lead to it, an item of a list by its number; none for the top.
        mapping: name -> tensor, and whatever else it has.
        rank: those of rank 0 are taken before those of rank 1, if they fit as well.
    """

    steps: Steps
    mapping: Mapping[Any, Any]
    rank: int

    @property
    def container(self) -> str:
        """The path as it is given and shown: "ema.module", "models.0"; "" for the top."""
        return _dotted(self.steps)


def find_weights(content: Any, wanted: str | None = None, depth: int = DEPTH) -> list[Weights]:
    """Every mapping of tensors in a file but those of optimisers: the preferred first, of these the largest.

    Args:
        content: what the file holds.
        wanted: the path of the mapping to take, or of what is around it; None for all.
        depth: mappings and lists in one another that are looked through.
    """
    steps = _steps_of(content, wanted or "")
    if steps is None:
        return []
    start = content
    for step in steps:
        start = start[step]
    found = list(_search(start, steps, depth, set()))
    if wanted is not None and found and found[0][0] == steps:
        found = found[:1]
    # What has no tensor of any size is a loss, a metric or the number of a step, unless there is nothing else.
    found = [pair for pair in found if any(map(_has_size, pair[1].values()))] or found
    found = sorted(found, key=lambda pair: -len(pair[1]))[:MOST]
    better = _better_average(content)
    ranked = [Weights(path, mapping, _rank(_dotted(path), better)) for path, mapping in found]
    return sorted(ranked, key=lambda weights: weights.rank)


def without(content: Any, steps: Steps) -> Any:
    """What stands beside the weights at a place. A list has None where they stood, so that its numbers stay."""
    if not steps:
        return {}
    inner = without(content[steps[0]], steps[1:])
    if not isinstance(content, Mapping):
        others = [inner or None if place == steps[0] else item for place, item in enumerate(content)]
        return others if any(item is not None for item in others) else []
    kept = {as_text(key): item for key, item in content.items() if key != steps[0]}
    return {**kept, as_text(steps[0]): inner} if inner else kept


def is_tensor(value: Any) -> bool:
    """Whether it is a tensor, or a number of numpy's."""
    return isinstance(value, TENSORS) or (isinstance(value, np.generic) and value.dtype.kind in "fiub")


def tensors_in(weights: Mapping[Any, Any]) -> tuple[dict[str, LazyTensor], dict[str, OtherTensor]]:
    """The tensors of a mapping by their names, and those whose values aren't plainly in the file.

    Raises:
        DamagedError: two of its keys are the same name.
    """
    tensors: dict[str, LazyTensor] = {}
    others: dict[str, OtherTensor] = {}
    for key, value in weights.items():
        name = key if type(key) is str else as_text(key)
        if name in tensors or name in others:
            raise DamagedError(f"two of its keys become the name {name!r}")
        tensor = _lazy(value) if is_tensor(value) else None
        if isinstance(value, Call) and "." in name:  # a name within a module: a tensor of whatever kind
            tensor = OtherTensor(f"an object of the class {told(value.function):.200}; save a plain tensor of it")
        if isinstance(tensor, OtherTensor):
            others[name] = tensor
        elif tensor is not None:
            tensors[name] = tensor
    return tensors, others


def as_text(key: Any) -> str:
    """A key as a name. Some files have bytes for names."""
    return key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else str(key)


def _search(item: Any, steps: Steps, depth: int, seen: set[int]) -> Iterator[tuple[Steps, Mapping[Any, Any]]]:
    """Every mapping of tensors in this one, itself included, so many steps deep; each once."""
    if id(item) in seen or _is_of_optimizer(item, steps):
        return
    seen.add(id(item))
    if isinstance(item, Mapping) and any(map(is_tensor, item.values())):
        yield steps, item
    for key, inner in _items(item) if depth else ():
        if isinstance(inner, Mapping | list | tuple):
            yield from _search(inner, (*steps, key), depth - 1, seen)


def _items(item: Any) -> Iterable[tuple[Any, Any]]:
    return item.items() if isinstance(item, Mapping) else enumerate(item) if isinstance(item, list | tuple) else ()


def _is_of_optimizer(item: Any, steps: Steps) -> bool:
    """Whether it is the state of an optimiser, whose tensors are no weights: by what torch's have, or by its name."""
    name = as_text(steps[-1]) if steps else ""
    if OPTIMIZER.search(name) and "model" not in name.lower():
        return True
    return isinstance(item, Mapping) and any(isinstance(key, str) and key.startswith("param_groups") for key in item)


def _steps_of(item: Any, path: str, steps: Steps = ()) -> Steps | None:
    """The steps that a dotted path stands for; None where it leads nowhere. A key may have dots itself."""
    if not path or _is_of_optimizer(item, steps):
        return None if path else steps
    for key, inner in _items(item):
        name = as_text(key)
        if path == name or path.startswith(f"{name}."):
            found = _steps_of(inner, path[len(name) + 1 :], (*steps, key))
            if found is not None:
                return found
    return None


def _dotted(steps: Steps) -> str:
    return ".".join(map(as_text, steps))


def _has_size(value: Any) -> bool:
    return isinstance(value, LazyTensor | Tensor) and value.dim() > 0


def _lazy(value: Any) -> LazyTensor:
    if isinstance(value, LazyTensor):
        return value
    if isinstance(value, Tensor) and (value.layout != torch.strided or value.is_quantized):
        return OtherTensor("a sparse or quantised tensor; give tensor.to_dense() or .dequantize()", value.shape)
    return GivenTensor(value.cpu() if isinstance(value, Tensor) else torch.from_numpy(np.array(value)))


def _rank(path: str, better: str) -> int:
    """0 for averages that are evaluated, 2 for those that aren't, 1 for all other weights."""
    if path == better:
        return 0
    return 2 if path.rpartition(".")[2] in SECOND else 0 if AVERAGED & set(re.findall("[a-z]+", path.lower())) else 1


def _better_average(content: Any) -> str:
    """pycls says which of the raw and the averaged weights made fewer errors."""
    raw, averaged = (content.get(name) if isinstance(content, Mapping) else None for name in ("test_err", "ema_err"))
    if isinstance(raw, int | float) and isinstance(averaged, int | float) and averaged < raw:
        return "ema_state"
    return ""
