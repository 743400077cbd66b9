"""torchvision's pairs of graphs, one for training and one for evaluation, which can be copied and pickled."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate
from torchvision.models.feature_extraction import DualGraphModule

from detrex_backbones.backbones.recompute import run_recomputed

__all__ = ["TracedPair", "copyable"]


class TracedPair(DualGraphModule):  # type: ignore[misc]
    """torchvision's, which forgets its mode when it is copied and one graph when it is pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        root = nn.Module()
        for name in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
            root.__dict__[name] = copy.copy(self.__dict__[name])
        modes = [module.training for module in self.modules()]
        return _rebuild, (root, _written_down(self.train_graph), _written_down(self.eval_graph), modes)

    def __deepcopy__(self, memo: dict[int, Any]) -> TracedPair:
        duplicate = _rebuild(*copy.deepcopy(self.__reduce__()[1], memo))
        memo[id(self)] = duplicate
        return duplicate

    def overwritten(self, image: Tensor) -> tuple[set[str], set[str]]:
        """The names of the nodes whose values something behind them changes in place, in training and in evaluation.

        Run on `image`, best on the meta device. The module's mode stays as it is.
        """
        mode = self.training
        found = []
        for graph in (self.train_graph, self.eval_graph):
            self.train(graph is self.train_graph)
            found.append(_Versions(self, graph=graph).overwritten(image))
        self.train(mode)
        return found[0], found[1]

    def keep_values(self, overwritten: tuple[Collection[str], Collection[str]]) -> None:
        """Let what is behind these nodes of the two graphs work on copies of their values."""
        for graph, names in zip((self.train_graph, self.eval_graph), overwritten, strict=True):
            for node in [node for node in graph.nodes if node.name in names]:
                with graph.inserting_after(node):
                    duplicate = graph.call_method("clone", (node,))
                node.replace_all_uses_with(
                    duplicate, lambda user, own=duplicate: user is not own and user.op != "output"
                )
        self.recompile()

    def run_recomputed(self, image: Tensor, chosen: Collection[str]) -> dict[str, Tensor]:
        """The maps, with what lies between a chosen map and the one before it computed again in the backward pass."""
        returned: Mapping[str, fx.Node] = next(node for node in self.graph.nodes if node.op == "output").args[0]
        ends = {node: name for name, node in returned.items()}
        values: dict[fx.Node, Any] = {}
        segment: list[fx.Node] = []
        for node in self.graph.nodes:
            if node.op == "placeholder":
                values[node] = image
            elif node.op != "output":
                segment.append(node)
            if node in ends:
                _Segment(self, segment).run(values, recomputed=ends[node] in chosen)
                segment = []
        return {name: values[node] for name, node in returned.items()}


class _Versions(fx.Interpreter):
    """Runs a graph, and notes at which version each value was when its node gave it."""

    def overwritten(self, image: Tensor) -> set[str]:
        self.given: dict[fx.Node, tuple[Tensor, int]] = {}
        with torch.no_grad():
            self.run(image)
        output = next(node for node in self.graph.nodes if node.op == "output").args[0]
        returned = set(output.values()) if isinstance(output, Mapping) else set(output)
        return {
            node.name for node, (value, version) in self.given.items() if node in returned and value._version != version
        }

    def run_node(self, node: fx.Node) -> Any:
        value = super().run_node(node)
        if isinstance(value, Tensor) and node.op != "output":
            self.given[node] = (value, value._version)
        return value


class _Segment:
    """Nodes of a graph that run together, between two maps."""

    def __init__(self, pair: TracedPair, nodes: Sequence[fx.Node]) -> None:
        self.pair, self.nodes = pair, list(nodes)
        own = set(self.nodes)
        self.needs = list(
            dict.fromkeys(below for node in self.nodes for below in node.all_input_nodes if below not in own)
        )
        self.gives = [node for node in self.nodes if any(user not in own for user in node.users)]

    def run(self, values: dict[fx.Node, Any], *, recomputed: bool) -> None:
        """Compute the values of what later nodes need, into `values`."""
        inputs = [values[node] for node in self.needs]
        found = run_recomputed(self.pair, *inputs, forward=self._compute) if recomputed else self._compute(*inputs)
        values.update(zip(self.gives, found, strict=True))

    def _compute(self, *inputs: Any) -> tuple[Any, ...]:
        interpreter = fx.Interpreter(self.pair, graph=self.pair.graph)
        interpreter.env = dict(zip(self.needs, inputs, strict=True))
        for node in self.nodes:
            interpreter.env[node] = interpreter.run_node(node)
        return tuple(interpreter.env[node] for node in self.gives)


def copyable(pair: DualGraphModule) -> TracedPair:
    """The same two graphs over the same modules, in the same mode."""
    made = TracedPair(pair, pair.train_graph, pair.eval_graph)
    made.train(pair.training)
    return made


@dataclass(frozen=True)
class _Place:
    """What stands for a node in the arguments of another: its place in the graph."""

    number: int


Written = list[tuple[str, str, Any, Any, Any]]


def _written_down(graph: fx.Graph) -> Written:
    """Name, operation, target and arguments of every node: pickle would follow the chain of nodes from end to end."""
    places = {node: _Place(number) for number, node in enumerate(graph.nodes)}

    def written(value: Any) -> Any:
        return places[value] if isinstance(value, fx.Node) else value

    return [
        (node.name, node.op, node.target, *(map_aggregate(part, written) for part in (node.args, node.kwargs)))
        for node in graph.nodes
    ]


def _graph_of(nodes: Written) -> fx.Graph:
    graph = fx.Graph()
    made: list[fx.Node] = []

    def read(value: Any) -> Any:
        return made[value.number] if isinstance(value, _Place) else value

    for name, operation, target, args, kwargs in nodes:
        args, kwargs = map_aggregate(args, read), map_aggregate(kwargs, read)
        made.append(graph.create_node(operation, target, args, kwargs, name))
    return graph


def _rebuild(root: nn.Module, train_graph: Written, eval_graph: Written, modes: Sequence[bool]) -> TracedPair:
    pair = TracedPair(root, _graph_of(train_graph), _graph_of(eval_graph))
    pair.train(modes[0])
    # Its parts may be in another mode: norms that a user holds in evaluation mode, for one.
    for module, mode in zip(pair.modules(), modes, strict=True):
        module.training = mode
    return pair
