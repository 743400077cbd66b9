"""From names in a file to the names of the model in hand, where no table is needed for it.

Trainers put an attribute's name before all names: `model.` and `net.` (Lightning), `backbone.`. timm's feature wrappers
take the first dot of a name away, where the model asks for it: `stages.0.blocks` becomes `stages_0.blocks`. (What else
they do, `model.` or `body.` before all names, is a scope.) Everything here is linear in the number of names.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from torch import Tensor

from detrex_backbones.checkpoint.match import Shapes

__all__ = ["ModelNames"]


class ModelNames:
    """The names of a model and all their tails ("backbone.conv1.weight", "conv1.weight", "weight"), with shapes.

    Args:
        model: name -> shape.
    """

    def __init__(self, model: Shapes) -> None:
        self._tails: dict[str, set[tuple[int, ...]]] = defaultdict(set)
        for key, shape in model.items():
            for tail in _tails(key):
                self._tails[tail].add(shape)

    def __contains__(self, name: object) -> bool:
        """Whether a name of a file is one of the model's, as it is or as a feature wrapper has it."""
        return isinstance(name, str) and (name in self._tails or _flat(name) in self._tails)

    def flattened(self, names: Iterable[str]) -> dict[str, str]:
        """Those names of a plain network that a feature wrapper in the model changes -> what it makes of them.

        Names that the model has already stay, so those of a wrapper itself are left alone.
        """
        return {name: _flat(name) for name in names if name not in self._tails and _flat(name) in self._tails}

    def prefixes(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """What stands before the model's names in a file (clean name -> tensor): where most names and shapes fit."""
        fitting: Counter[str] = Counter()
        behind: Counter[str] = Counter()
        for name, tensor in tensors.items():
            for tail in _tails(name):
                head = name[: len(name) - len(tail)]
                behind[head] += 1
                known = self._tails.get(tail) or self._tails.get(_flat(tail)) or ()
                fitting[head] += tuple(tensor.shape) in known
        most = max(fitting.values(), default=0)
        # Less than half is chance: blocks of unrelated networks share names and shapes.
        best = [head for head, count in fitting.items() if count == most and 2 * count > behind[head]]
        # Behind `model.` and `model.backbone.` alike there may be names of the model, of another length: one will do.
        return [head for head in best if not any(head != other and head.startswith(other) for other in best)]


def _flat(name: str) -> str:
    return name.replace(".", "_", 1)


def _tails(name: str) -> Iterable[str]:
    parts = name.split(".")
    return (".".join(parts[start:]) for start in range(len(parts)))
