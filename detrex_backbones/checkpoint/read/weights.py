"""Where in a file the weights are: every trainer wraps them in a mapping of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detrex_backbones.checkpoint.read.records import Call, told
from detrex_backbones.checkpoint.read.stored import GivenTensor, LazyTensor, OtherTensor

__all__ = ["find_weights", "is_tensor", "tensors_in"]

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


def tensors_in(weights: Mapping[Any, Any]) -> tuple[dict[str, LazyTensor], dict[str, OtherTensor]]:
    """The tensors of a mapping by their names, and those whose values aren't plainly in the file."""
    tensors: dict[str, LazyTensor] = {}
    others: dict[str, OtherTensor] = {}
    for key, value in weights.items():
        name = str(key)
        tensor = _lazy(value) if is_tensor(value) else None
        if isinstance(value, Call) and "." in name:  # a name within a module: a tensor of whatever kind
            tensor = OtherTensor(f"an object of the class {told(value.function):.200}; save a plain tensor of it")
        if isinstance(tensor, OtherTensor):
            others[name] = tensor
        elif tensor is not None:
            tensors[name] = tensor
    return tensors, others


def _lazy(value: Any) -> LazyTensor:
    if isinstance(value, LazyTensor):
        return value
    if isinstance(value, Tensor) and (value.layout != torch.strided or value.is_quantized):
        return OtherTensor("a sparse or quantised tensor; give tensor.to_dense() or .dequantize()", value.shape)
    return GivenTensor(value if isinstance(value, Tensor) else torch.from_numpy(np.array(value)))


def _pycls(content: Mapping[Any, Any]) -> str:
    """pycls says which of the raw and the averaged weights made fewer errors."""
    raw, averaged = (content.get(name) for name in ("test_err", "ema_err"))
    if isinstance(raw, int | float) and isinstance(averaged, int | float) and averaged < raw:
        return "ema_state"
    return "model_state"


PREFERENCES: tuple[Callable[[Mapping[Any, Any]], str], ...] = (_pycls,)
