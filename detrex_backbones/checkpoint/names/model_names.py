"""From names in a file to the names of the model in hand, where no table is needed for it.

Trainers put an attribute's name before all names: `model.` and `net.` (Lightning), `backbone.`. timm's feature wrappers
take the first dot of a name away, where the model asks for it: `stages.0.blocks` becomes `stages_0.blocks`. (What else
they do, `model.` or `body.` before all names, is a scope.) Everything here is linear in the number of names.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property

from detrex_backbones.checkpoint.entry import Shapes

__all__ = ["ModelNames"]


class ModelNames:
    """The names of a model and all their tails ("backbone.conv1.weight", "conv1.weight", "weight"), with shapes.

    Args:
        model: name -> shape.
    """

    def __init__(self, model: Shapes) -> None:
        self._model = model

    @cached_property
    def _tails(self) -> dict[str, Collection[tuple[int, ...]]]:
        tails: dict[str, Collection[tuple[int, ...]]] = {}
        for key, shape in self._model.items():
            tail, dot, alone = key, ".", (shape,)
            while dot:
                shapes = tails.get(tail)
                if shapes is None:
                    tails[tail] = alone  # most tails have one shape, and one small tuple is enough for all of a name
                elif shape in shapes:
                    break  # and so are all shorter tails
                elif isinstance(shapes, set):
                    shapes.add(shape)
                else:
                    tails[tail] = {*shapes, shape}
                _, dot, tail = tail.partition(".")
        return tails

    @cached_property
    def _joined(self) -> set[str]:
        """Names of modules that a feature wrapper may have put together."""
        paths = {key.rpartition(".")[0] for key in self._model}
        return {module for path in paths for module in path.split(".") if "_" in module}

    def __contains__(self, name: object) -> bool:
        """Whether a name of a file is one of the model's, as it is or as a feature wrapper has it."""
        return isinstance(name, str) and (name in self._tails or _flat(name) in self._tails)

    def flattened(self, names: Iterable[str]) -> dict[str, str]:
        """Those names of a plain network that a feature wrapper in the model changes -> what it makes of them.

        Names that the model has already stay, so those of a wrapper itself are left alone.
        """
        flat = {name: _flat(name) for name in names} if self._joined else {}
        joined = {name: changed for name, changed in flat.items() if changed.partition(".")[0] in self._joined}
        return {name: changed for name, changed in joined.items() if name not in self._tails and changed in self._tails}

    def prefixes(self, shapes: Shapes) -> list[str]:
        """What stands before the model's names in a file (clean name -> shape): where most names and shapes fit."""
        if all(self._model.get(name) == shape for name, shape in shapes.items()):
            return [""] if shapes else []
        fitting: dict[str, int] = defaultdict(int)
        for name, shape in shapes.items():
            tail, dot = name, "."
            # "weight" alone tells nothing, unless the model is one layer.
            while dot and ("." in tail or tail in self._model):
                known = self._tails.get(tail) or (self._joined and self._tails.get(_flat(tail)))
                if known and shape in known:
                    fitting[name[: len(name) - len(tail)]] += 1
                _, dot, tail = tail.partition(".")
        most = max(fitting.values(), default=0)
        names = sorted(shapes)
        # Less than half is chance: blocks of unrelated networks share names and shapes.
        best = [head for head, count in fitting.items() if count == most and 2 * count > _starting(names, head)]
        # Behind `model.` and `model.backbone.` alike there may be names of the model, of another length: one will do.
        return [head for head in best if not any(head != other and head.startswith(other) for other in best)]


def _flat(name: str) -> str:
    return name.replace(".", "_", 1)


def _starting(names: Sequence[str], head: str) -> int:
    """How many of sorted names start with `head`, which is "" or ends with a dot."""
    return bisect_left(names, head[:-1] + "/") - bisect_left(names, head) if head else len(names)
