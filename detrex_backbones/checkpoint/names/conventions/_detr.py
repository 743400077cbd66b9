"""What the tables of the DETR family have in common: the backbone, transformer layers, class rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from detrex_backbones.checkpoint.names.conventions import torchvision
from detrex_backbones.checkpoint.names.conventions._convention import Pair
from detrex_backbones.checkpoint.read import LazyTensor

__all__ = [
    "BACKBONE",
    "BATCH_COUNTERS",
    "CATEGORIES",
    "DC5",
    "FEED_FORWARD",
    "KEPT",
    "NORMS",
    "NO_OBJECT",
    "ONE_WAY",
    "QUERY_HEADS",
    "Rows",
    "attention",
    "backbone",
    "keep_rows",
    "layers",
    "same",
]

# COCO numbers its 80 categories from 1 to 90. The original heads have a row for every number, detrex's for every
# category. No category has number 0: only the proposals of a two-stage model use that row.
UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
CATEGORIES = tuple(number for number in range(1, 91) if number not in UNUSED_IDS)
NO_OBJECT = 91

DC5 = "a DC5 model, whose res5 is dilated, has the same names and shapes"
ONE_WAY = "the rows of COCO's unused category numbers were dropped on reading"

# What detrex's models have beyond the originals. An FFN has its activation under two names.
KEPT = {
    r"(^|\.)criterion\.empty_weight$": "class weights of the loss, which the config sets",
    r"\.ffns\.\d+\.activation\.weight$": "the same tensor as layers.0.1.weight",
}
BATCH_COUNTERS = {r"\.num_batches_tracked$": "batch counter"}

# Of one transformer layer: the original's names -> detrex's.
FEED_FORWARD = {
    "linear1.{leaf}": "ffns.0.layers.0.0.{leaf}",
    "activation.weight": "ffns.0.layers.0.1.weight",  # a PReLU, where one was trained
    "linear2.{leaf}": "ffns.0.layers.1.{leaf}",
}
NORMS = {"norm{k}.{leaf}": "norms.{k-1}.{leaf}"}


def attention(theirs: str, ours: str) -> dict[str, str]:
    """Names of a `torch.nn.MultiheadAttention` within a layer."""
    leaves = ("in_proj_weight", "in_proj_bias", "out_proj.{leaf}")
    return {f"{theirs}.{leaf}": f"{ours}.{leaf}" for leaf in leaves}


def layers(part: str, *names: Mapping[str, str]) -> tuple[Pair, ...]:
    """Pairs for all layers of a part ("encoder", "decoder") of the transformer, from the names in one layer."""
    layer = f"transformer.{part}.layers.{{n}}."
    return tuple(Pair(layer + theirs, layer + ours) for table in names for theirs, ours in table.items())


def same(*names: str) -> tuple[Pair, ...]:
    """Pairs for names that both sides use."""
    return tuple(Pair(name, name) for name in names)


def backbone(pairs: Iterable[Pair], *prefixes: str) -> tuple[Pair, ...]:
    """Pairs of a ResNet without its classifier, behind the source's prefixes (the first is written) and detrex's."""
    moved = []
    for pair in pairs:
        if pair.ours.startswith("linear."):
            continue
        first, *also = (prefix + name for name in (pair.theirs, *pair.also) for prefix in prefixes)
        moved.append(Pair(first, "backbone." + pair.ours, pair.rank, tuple(also)))
    return tuple(moved)


BACKBONE = backbone(torchvision.CONVENTION.pairs, "backbone.0.body.")

# What makes positions of queries, and scales them: Conditional and DN DETR.
QUERY_HEADS = same(*(f"transformer.decoder.{head}.layers.{{k}}.{{leaf}}" for head in ("query_scale", "ref_point_head")))


class Rows(NamedTuple):
    """Which rows of a tensor are kept.

    Args:
        names: pattern of the names that it holds for.
        stored: number of rows that such a tensor must have. Another number is another data set's, and stays.
        kept: indices of the rows, in their new order.
        what: the rows are, for the report.
    """

    names: str
    stored: int
    kept: Sequence[int]
    what: str


def keep_rows(network: Mapping[str, LazyTensor], rules: Iterable[Rows]) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """Keep the wanted rows of each tensor; of several rules that hold for a name the first is taken.

    Returns:
        All tensors; and what was done to which.
    """
    rules = tuple(rules)
    tensors, done = dict(network), {}
    for name, tensor in network.items():
        rule = next((rule for rule in rules if re.search(rule.names, name)), None)
        if rule is not None and tensor.dim() > 0 and len(tensor) == rule.stored:
            tensors[name] = tensor[list(rule.kept)]
            done[name] = f"{rule.stored} rows -> {len(rule.kept)}: {rule.what}"
    return tensors, done
