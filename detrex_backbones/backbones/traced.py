"""torchvision's pairs of graphs, one for training and one for evaluation, which can be copied and pickled."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import fx, nn
from torchvision.models.feature_extraction import DualGraphModule

__all__ = ["TracedPair", "copyable"]


class TracedPair(DualGraphModule):  # type: ignore[misc]
    """torchvision's, which forgets its mode when it is copied and one graph when it is pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        root = nn.Module()
        for name in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
            root.__dict__[name] = copy.copy(self.__dict__[name])
        modes = [module.training for module in self.modules()]
        # Copies of graphs don't refer to the module that they belong to.
        return _rebuild, (root, copy.deepcopy(self.train_graph), copy.deepcopy(self.eval_graph), modes)

    def __deepcopy__(self, memo: dict[int, Any]) -> TracedPair:
        duplicate = _rebuild(*copy.deepcopy(self.__reduce__()[1], memo))
        memo[id(self)] = duplicate
        return duplicate


def copyable(pair: DualGraphModule) -> TracedPair:
    """The same two graphs over the same modules, in the same mode."""
    made = TracedPair(pair, pair.train_graph, pair.eval_graph)
    made.train(pair.training)
    return made


def _rebuild(root: nn.Module, train_graph: fx.Graph, eval_graph: fx.Graph, modes: Sequence[bool]) -> TracedPair:
    pair = TracedPair(root, train_graph, eval_graph)
    pair.train(modes[0])
    # Its parts may be in another mode: norms that a user holds in evaluation mode, for one.
    for module, mode in zip(pair.modules(), modes, strict=True):
        module.training = mode
    return pair
