"""Parts of the tables of transformers and newer convolutional networks: names in a block, joined projections."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

from detrex_backbones.checkpoint.names.conventions._convention import Adaptation, Pair
from detrex_backbones.checkpoint.names.numbers import number_in
from detrex_backbones.checkpoint.read import GivenTensor, LazyTensor, joined

__all__ = ["BATCH_COUNTERS", "JOINED", "LAST_NORM", "WRITTEN_APART", "counted_through", "join_projections", "pairs_of"]

BATCH_COUNTERS = {r"\.num_batches_tracked$": "batch counter"}
LAST_NORM = {r"^(norm|layernorm)\.(weight|bias)$": "norm before the classifier", r"^classifier\.": "head"}
WRITTEN_APART = "each attention's query, key and value were joined on reading"
JOINED = "joined to its first projection"


def pairs_of(theirs: str, ours: str, names: Mapping[str, str]) -> tuple[Pair, ...]:
    """Pairs for all tensors of a module with weights, bias and statistics.

    Args:
        theirs: what stands before the source's names: "encoder.layer.{i}.".
        ours: what stands before ours.
        names: the source's name of each module or tensor in there -> ours. A name that ends with a dot is a module's.
    """
    return tuple(
        Pair(
            f"{theirs}{name}{{leaf}}" if name.endswith(".") else theirs + name,
            ours + own + "{leaf}" * own.endswith("."),
        )
        for name, own in names.items()
    )


def join_projections(first: str, *others: str, zeros: bool = False) -> Adaptation:
    """Join projections that a source has apart, query and key and value, to the first one, under whose name they stay.

    Args:
        first: module of the first projection, as names have it before their last dot: "attention.self.query".
        others: of those that come behind it.
        zeros: whether a bias that only the first has stands for zeros in the others; else it stays as it is.
    """

    def adapt(tensors: Mapping[str, LazyTensor]) -> tuple[dict[str, LazyTensor], dict[str, str]]:
        adapted, done = dict(tensors), {}
        for name in tensors:
            head, found, leaf = name.rpartition(f"{first}.")
            names = [f"{head}{other}.{leaf}" for other in others]
            there = [other in tensors for other in names]
            if not found or not (all(there) or (zeros and leaf == "bias")):
                continue
            parts = [tensors[name], *(_or_zeros(tensors, other, tensors[name]) for other in names)]
            adapted[name], done[name] = joined(parts), "query, key and value joined"
            for other in filter(tensors.__contains__, names):
                del adapted[other]
                done[other] = JOINED
        return adapted, done

    return adapt


def _or_zeros(tensors: Mapping[str, LazyTensor], name: str, like: LazyTensor) -> LazyTensor:
    return tensors[name] if name in tensors else GivenTensor(torch.zeros(like.shape, dtype=like.dtype))


def counted_through(block: str, row: str) -> Callable[[Iterable[str]], dict[str, str]]:
    """A `Convention.renumber` for blocks that a source counts within each stage.

    Args:
        block: what the source's names begin with, its numbers `{s}` and `{i}`: "encoder.stages.{s}.layers.{i}.".
        row: the same with one number: "blocks.{i}.".
    """
    before, between, behind = _cut(block)

    def renumber(names: Iterable[str]) -> dict[str, str]:
        found = {}
        for name in names:
            stage, one, rest = name.removeprefix(before).partition(between)
            index, other, tail = rest.partition(behind)
            at, place = number_in(stage), number_in(index)
            if name.startswith(before) and one and other and at is not None and place is not None:
                found[name] = (at, place, tail)
        numbers = {place: at for at, place in enumerate(sorted({(stage, index) for stage, index, _ in found.values()}))}
        return {name: row.format(i=numbers[stage, index]) + tail for name, (stage, index, tail) in found.items()}

    return renumber


def _cut(block: str) -> Sequence[str]:
    before, _, rest = block.partition("{s}")
    between, _, behind = rest.partition("{i}")
    return before, between, behind
