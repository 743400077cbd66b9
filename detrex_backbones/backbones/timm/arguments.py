"""What a TimmBackbone is asked for: which maps, and whose weights."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detrex_backbones.backbones.timm.build import all_indices, check_file
from detrex_backbones.errors import ArgumentError
from detrex_backbones.kinds import check_flag

__all__ = ["DEFAULT_INDICES", "chosen_maps", "weights_from"]

DEFAULT_INDICES = (0, 1, 2, 3)
MAP = re.compile(r"p(-?\d+)")


def weights_from(pretrained: Any, checkpoint_path: str) -> bool:
    """Whether timm's own weights are wanted; checks where others are.

    Raises:
        ArgumentError: two sources; a `pretrained` that is a file, or of another kind than True and False.
        CheckpointFileError: a `checkpoint_path` that is missing.
    """
    if isinstance(pretrained, str | os.PathLike) and Path(pretrained).is_file():
        path = os.fspath(pretrained)
        raise ArgumentError(f"pretrained={path!r} is a file. Its weights are loaded by checkpoint_path={path!r}.")
    wanted = check_flag("pretrained", False if pretrained is None else pretrained)
    if wanted and checkpoint_path:
        raise ArgumentError(
            f"pretrained=True and checkpoint_path={checkpoint_path!r} are two sources of weights. Keep one."
        )
    if checkpoint_path:
        check_file(checkpoint_path)
    return wanted


def chosen_maps(
    model_name: str,
    out_indices: Sequence[int] | None,
    out_features: Sequence[str] | None,
    kwargs: Mapping[str, Any],
) -> dict[str, int] | None:
    """Name of each map that is asked for, in that order -> its index; None for timm's own choice.

    An index below zero counts from the last map, which is called "p-1", as detrex calls it.

    Raises:
        ArgumentError: no list of whole numbers or names, two different choices, a map twice or one that isn't there.
    """
    indices, given = _as_indices(out_indices, out_features)
    if indices is None:
        return None
    found = list(indices) if isinstance(indices, Iterable) and not isinstance(indices, str) else []
    whole = bool(found) and all(isinstance(index, int) and not isinstance(index, bool) for index in found)
    allowed = all_indices(model_name, kwargs) if not whole or min(found) < 0 else []
    is_there = whole and min(found) >= -len(allowed)
    named = {f"p{index}": index if index >= 0 else allowed[index] for index in found} if is_there else {}
    if not is_there or len(set(named.values())) != len(found):
        allowed = allowed or all_indices(model_name, kwargs)
        raise ArgumentError(
            f"{given}: {model_name} has the maps {allowed}, and -1 is the last of them. Choose at least one of these, "
            f"and none of them twice."
        )
    return named


def _as_indices(out_indices: Sequence[int] | None, out_features: Sequence[str] | None) -> tuple[Any, str]:
    """The indices that are asked for, by number or by name, and how."""
    if out_features is None:
        return out_indices, f"out_indices={out_indices!r}"
    given = f"out_features={out_features!r}"
    if isinstance(out_features, str):
        raise ArgumentError(f"{given} is a string. It takes a list of names: out_features=[{out_features!r}].")
    names = list(out_features)
    wrong = [name for name in names if not (isinstance(name, str) and MAP.fullmatch(name))]
    if wrong:
        raise ArgumentError(f"{given}: {wrong[0]!r} is no name of a map. They are 'p0', 'p1' and so on.")
    indices = [int(name[1:]) for name in names]
    if out_indices not in (None, DEFAULT_INDICES) and list(out_indices or ()) != indices:
        raise ArgumentError(f"{given} and out_indices={out_indices!r} choose different maps. Keep one of them.")
    return indices, given
