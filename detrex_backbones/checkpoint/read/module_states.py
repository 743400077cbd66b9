"""What a state dict says of modules beside their tensors: states that are no tensors, and versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detrex_backbones.checkpoint.read.records import Call, Name
from detrex_backbones.checkpoint.read.stored import OtherTensor
from detrex_backbones.checkpoint.read.weights import as_text, is_tensor

__all__ = ["EXTRA_STATE", "extra_states", "versions"]

EXTRA_STATE = "_extra_state"


def extra_states(weights: Mapping[Any, Any]) -> dict[str, Any]:
    """What modules keep that is no tensor, by its name in the file, where it is plain data."""
    others = {as_text(name): value for name, value in weights.items() if not is_tensor(value)}
    return {name: value for name, value in others.items() if name.endswith(EXTRA_STATE) and _is_plain(value, set())}


def versions(weights: Mapping[Any, Any]) -> dict[str, dict[str, Any]]:
    """What torch's state dicts say of each module beside its tensors: path -> {"version": 2}."""
    metadata = getattr(weights, "_metadata", None)
    found = metadata.items() if isinstance(metadata, Mapping) else ()
    return {as_text(path): dict(said) for path, said in found if isinstance(said, Mapping) and _is_plain(said, set())}


def _is_plain(value: Any, seen: set[int]) -> bool:
    """Whether no record of a call or a name stands in it. What stands in several places is looked at once."""
    if id(value) in seen:
        return True
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        seen.add(id(value))
        return all(_is_plain(item, seen) for item in (value.values() if isinstance(value, Mapping) else value))
    return not isinstance(value, Call | Name | OtherTensor)
