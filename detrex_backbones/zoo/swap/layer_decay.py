"""Learning rates that fall from block to block of a ViT: the number of blocks that they count on."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from detrex_backbones.zoo.meta_build import build_on_meta
from detrex_backbones.zoo.swap.change import Change
from detrex_backbones.zoo.swap.rewire import Path, nodes_below

__all__ = ["layer_decay_edits"]

FUNCTION = "lr_factor_func"  # of detectron2's get_default_optimizer_params
COUNT = "num_layers"
BLOCK = re.compile(r"(?:^|\.)blocks\.(\d+)\.")


def layer_decay_edits(cfg: DictConfig, backbone: DictConfig) -> tuple[dict[Path, Any], list[Change]]:
    """What makes `optimizer.params.lr_factor_func` count the blocks of the new network, and what there is to say of it.

    detectron2's ViTDet configs give `partial(get_vit_lr_decay_rate, num_layers=12, ...)`: a block behind the twelfth
    would learn faster than the rate that is set.

    Args:
        cfg: the config.
        backbone: node of the new backbone.
    """
    functions = [(place, function) for place, function in _functions(cfg) if _count(function) is not None]
    blocks = _blocks(build_on_meta(backbone)) if functions else None
    edits: dict[Path, Any] = {}
    said: list[Change] = []
    for place, function in functions:
        counted, number = _count(function), (*place, COUNT)
        if counted == blocks:
            continue
        if blocks is None:
            why = "the new network has no such blocks: look whether this decay is still meant"
            said.append(Change(".".join(map(str, number)), counted, counted, why))
        elif isinstance(function, functools.partial):
            words = {**function.keywords, COUNT: blocks}
            edits[place] = functools.partial(function.func, *function.args, **words)
        else:
            edits[number] = blocks
    return edits, said


def _functions(cfg: DictConfig) -> Iterator[tuple[Path, Any]]:
    """Where an `lr_factor_func` is written down outside the model, and what it is."""
    for key in map(str, cfg):
        if key == "model" or OmegaConf.is_missing(cfg, key) or OmegaConf.is_interpolation(cfg, key):
            continue
        for path, node in nodes_below(cfg._get_node(key), (key,)):
            if FUNCTION in node and not OmegaConf.is_interpolation(node, FUNCTION):
                place: Path = (*path, FUNCTION)
                yield place, node.get(FUNCTION)


def _count(function: Any) -> int | None:
    words = function.keywords if isinstance(function, functools.partial) else function
    count = words.get(COUNT) if isinstance(words, dict | DictConfig) else None
    return count if isinstance(count, int) else None


def _blocks(net: nn.Module) -> int | None:
    """How many blocks a plain ViT has; None for other networks, whose blocks stand in stages or nowhere."""
    matches = [match for name, _ in net.named_parameters() if (match := BLOCK.search(name))]
    places = {match.string[: match.start()] for match in matches}
    return len({match[1] for match in matches}) if len(places) == 1 else None
