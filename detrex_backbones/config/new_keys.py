"""Which new keys an override may make, so that a slip of the hand is an error and not a key that nothing reads."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig

from detrex_backbones.checkpoint.options import option_names
from detrex_backbones.config.nodes import is_call, structured_type
from detrex_backbones.config.signatures import named_parameters, unknown_argument
from detrex_backbones.config.targets import locate
from detrex_backbones.text import visible

__all__ = ["SECTIONS", "known_target", "objection_to_key", "objection_to_value"]

# What this library reads of any config, by the place where it stands. Each is a section; of its keys, `train` and its
# `load_options` have these alone and those that their config gives them.
SECTIONS = {
    "": ("model", "backbone", "train"),
    "train": ("device", "init_checkpoint", "load_options"),
    "train.load_options": tuple(option_names()),
}
WHOLE = ("model", "train", "train.load_options")
SWAPPED = (
    "the config has no key 'backbone', and nothing would read one. In Python a backbone is swapped by "
    "detrex_backbones.swap_backbone(cfg, NAME); `backbone=NAME` is for the commands of detrex-backbones."
)


def objection_to_key(node: DictConfig, key: Any) -> str | None:
    """Why an override shouldn't make this new key in the node: a sentence, or None if it may.

    In a node with `_target_`, the target must take it; in `train` it must be one that is read; and nowhere may it be
    within two letters of one that is there or is read, which was probably meant. Keys that differ in digits alone, and
    very short ones, are never taken for each other.
    """
    target = known_target(node) if is_call(node) else None
    if problem := unknown_argument(target, key):
        return problem
    place = node._get_full_key(None)
    if not place and key == "backbone" and "model" in node:
        return SWAPPED
    taken = named_parameters(target) if target is not None else ()
    read = SECTIONS.get(place, ())
    if not isinstance(key, str) or key in taken or key in read or structured_type(node):  # which refuses it itself
        return None
    near = closest_slip(key, [*map(str, node), *read, *taken])
    if near is None and not place:
        inner = closest_slip(key, SECTIONS["train"])
        near = f"train.{inner}" if inner else None
    if near:
        return f"{visible(place) or 'the config'} has no key {key!r}. Did you mean {near!r}?"
    if place in SECTIONS and place:
        return f"{place} has no key {key!r}. It has: {', '.join(sorted({*map(visible, node), *read}))}."
    return None


def objection_to_value(node: DictConfig, key: Any, value: Any) -> str | None:
    """Why a section that the library reads shouldn't be replaced by this value: a sentence, or None if it may."""
    place = node._get_full_key(key)
    is_reference = isinstance(value, str) and "${" in value
    if place not in WHOLE or isinstance(value, dict) or is_reference or key not in node.keys():  # noqa: SIM118
        return None
    section = node._get_node(key)
    if not isinstance(section, DictConfig) or section._is_none() or section._is_missing():
        return None
    keys = [*map(str, section)] or SECTIONS.get(place, ())
    if not keys:
        return None
    inner = "init_checkpoint" if place == "train" and isinstance(value, str) else keys[0]
    names = ", ".join(map(visible, keys))
    return f"{place} is a section, with the keys {names}. Set one of them, such as {place}.{visible(inner)}."


def known_target(node: DictConfig) -> Any:
    """The target of a node, or None where that isn't known before it is called."""
    try:
        target = node["_target_"]
        found = locate(target) if isinstance(target, str) else target
    except Exception:  # not there yet, or not on this machine: instantiate says so when it matters
        return None
    return found if callable(found) else None


def closest_slip(name: str, known: Iterable[str]) -> str | None:
    """The known name that the given one probably was meant to be, or None."""
    found = [(_letters_apart(name, one), one) for one in known if _without_digits(one) != _without_digits(name)]
    near = [(apart, one) for apart, one in found if apart <= _allowance(min(len(name), len(one)))]
    return min(near)[1] if near else (name if name in known else None)


def _without_digits(name: str) -> str:
    return re.sub(r"[0-9]+", "0", name)


def _allowance(length: int) -> int:
    return 0 if length < 4 else 1 if length == 4 else 2


def _letters_apart(one: str, other: str) -> int:
    """How many letters to add, leave out, replace, or exchange with their neighbour makes one of the other."""
    if abs(len(one) - len(other)) > 2:
        return 3
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        earlier, before, row = before, row, [i]
        for j, wanted in enumerate(other, start=1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted)))
            if i > 1 and j > 1 and (letter, one[i - 2]) == (other[j - 2], wanted):
                row[j] = min(row[j], earlier[j - 2] + 1)
    return row[-1]
