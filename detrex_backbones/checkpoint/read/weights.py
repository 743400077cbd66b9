"""Where in a file the weights are: every trainer wraps them in a mapping of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detrex_backbones.checkpoint.read.dtypes import OtherTensor
from detrex_backbones.checkpoint.read.records import Call, Name
from detrex_backbones.checkpoint.read.stored import GivenTensor, LazyTensor

__all__ = ["extra_states", "find_weights", "is_tensor", "tensors_in", "versions"]

# The keys that weights stand under, the preferred one first; "" is the top level.
#   teacher: DINO, whose student is the noisier one.        model_state: pycls.      blobs: Detectron-1.
#   state_dict_ema, model_ema: timm's training; timm itself prefers them to state_dict.
#   state_dict: OpenMMLab, Lightning, MoCo. OpenMMLab's holds the averaged weights already, so its
#   ema_state_dict (the raw ones) is not in the list.      model: detectron2, detrex, DETR and most others.
CONTAINERS = ("state_dict_ema", "model_ema", "teacher", "model_state", "model", "state_dict", "blobs", "ema_state", "")


def find_weights(content: Mapping[Any, Any], wanted: str | None = None) -> tuple[str, Mapping[Any, Any]] | None:
    """The key that the weights stand under, and the weights; None where there are none.

    Args:
        content: what a file holds.
        wanted: the key to take; None for the preferred one of those that are there.
    """
    names = CONTAINERS if wanted is None else (wanted,)
    found = {}
    for name in names:
        weights = content.get(name) if name else content
        if isinstance(weights, Mapping) and any(is_tensor(value) for value in weights.values()):
            found[name] = weights
    for prefer in PREFERENCES:
        better = prefer(content)
        if better in found:
            return better, found[better]
    return next(iter(found.items()), None)


def is_tensor(value: Any) -> bool:
    """Whether it is a tensor, or a number of numpy's."""
    return isinstance(value, LazyTensor | Tensor) or (isinstance(value, np.generic) and value.dtype.kind in "fiub")


def tensors_in(weights: Mapping[Any, Any]) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """The tensors of a mapping by their names, and those whose values aren't plainly in the file with what they are."""
    tensors = {str(name): _lazy(value) for name, value in weights.items() if is_tensor(value)}
    others = {str(name): value.kind for name, value in weights.items() if isinstance(value, OtherTensor)}
    return tensors, others


def extra_states(weights: Mapping[Any, Any]) -> dict[str, Any]:
    """What modules keep that is no tensor, by its name in the file, where it is plain data."""
    suffix = "_extra_state"
    states = {str(name): value for name, value in weights.items() if str(name).endswith(suffix)}
    return {name: value for name, value in states.items() if not is_tensor(value) and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_plain, value))
    return not isinstance(value, Call | Name | OtherTensor)


def versions(weights: Mapping[Any, Any]) -> dict[str, dict[str, Any]]:
    """What torch's state dicts say of each module beside its tensors: path -> {"version": 2}."""
    metadata = getattr(weights, "_metadata", None)
    found = metadata.items() if isinstance(metadata, Mapping) else ()
    return {str(path): dict(said) for path, said in found if isinstance(said, Mapping) and _is_plain(said)}


def _lazy(value: Any) -> LazyTensor:
    if isinstance(value, LazyTensor):
        return value
    return GivenTensor(value if isinstance(value, Tensor) else torch.from_numpy(np.array(value)))


def _pycls(content: Mapping[Any, Any]) -> str:
    """pycls says which of the raw and the averaged weights made fewer errors."""
    raw, averaged = (content.get(name) for name in ("test_err", "ema_err"))
    if isinstance(raw, int | float) and isinstance(averaged, int | float) and averaged < raw:
        return "ema_state"
    return "model_state"


PREFERENCES: tuple[Callable[[Mapping[Any, Any]], str], ...] = (_pycls,)
