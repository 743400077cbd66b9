"""timm's families and the smallest model of each, counted in parameters."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache

import timm
import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

__all__ = ["Family", "families", "smallest"]

Family = tuple[str, str]
# A family is a module and the letters that begin a name: "mobilenetv2" of mobilenetv2_035, "resnet" of resnet10t.
# Who trained or ported it makes no family, and a few first words say nothing without the next.
HEAD = re.compile(r"(?:tf_|legacy_|ese_)?((?:(?:bat|dm|eca|gc|nf|tiny|wide)_)?(?:[a-z]+v\d+|[a-z]+\d[a-z]+|[a-z]+))")
# What smaller members have in their names: they are counted first, so that larger ones can be given up early.
SMALL = re.compile(r"tiny|small|nano|pico|femto|atto|lite|_x*s|_t|_[bem]?0|a0|10|14|18|26|34|50|128")


@cache
def families() -> dict[Family, list[str]]:
    """(module, family) -> its models, without the toys that timm tests itself with."""
    found: dict[Family, list[str]] = defaultdict(list)
    for module in timm.list_modules():
        for name in timm.list_models(module=module):
            head = HEAD.match(name)
            if head and not name.startswith("test_"):
                found[module, head[1]].append(name)
    return dict(found)


@cache
def smallest(family: Family) -> tuple[str, int]:
    """The family's model with the fewest parameters, and their number."""
    names = sorted(families()[family], key=lambda name: (not SMALL.search(name), len(name), name))
    best, fewest = "", 0
    for name in names:
        count = parameters(name, limit=2 * fewest if best else None)
        if count is not None and (not best or (count, name) < (fewest, best)):
            best, fewest = name, count
    return best, fewest


class _TooManyError(Exception):
    pass


def parameters(name: str, limit: int | None = None) -> int | None:
    """How many a model has; None where more than `limit` have been made before it is complete."""
    made = 0

    def count(module: nn.Module, key: str, parameter: nn.Parameter | None) -> None:
        nonlocal made
        made += parameter.numel() if parameter is not None else 0
        if limit is not None and made > limit:
            raise _TooManyError

    handle = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in timm.create_model(name).parameters())
    except _TooManyError:
        return None
    finally:
        handle.remove()
