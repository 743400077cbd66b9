"""What each map of a timm network is computed from, read off the graph that autograd draws of it.

The network runs on the meta device: shapes alone, no weights, no numbers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from detrex_backbones.backbones.timm.build import all_indices, create
from detrex_backbones.backbones.timm.sizes import as_maps, made_size, meta_network

__all__ = ["Reach", "reach_of_all", "read_reach"]

# A module up to its first number: some maps are taken within a block, "block2.rep.0".
STAGE = re.compile(r"\D*\d+[^.]*|.*")


@dataclass
class Reach:
    """What one run of a network showed. Names are those of its parameters and modules.

    Args:
        net: the network that was run.
        indices: which of timm's maps these are.
        shapes: of its maps, in its order.
        maps: the parameters that each of them depends on.
        before: those that the input of the first stage depends on; None where no module is known for it.
        stages: what each map is called in a message; without the stem's.
        has_stem: whether the first map is that of the stem.
        calls: how often each module was called.
        in_place: the modules that change what they are given.
    """

    net: nn.Module
    indices: list[int]
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    maps: list[set[str]] = field(default_factory=list)
    before: set[str] | None = None
    stages: list[str] = field(default_factory=list)
    has_stem: bool = False
    calls: Counter[str] = field(default_factory=Counter)
    in_place: set[str] = field(default_factory=set)

    def up_to(self, stage: int) -> set[str]:
        """The parameters that come before the first stage (0), or that the maps up to a stage (1 ...) depend on."""
        maps = self.maps[:1] if self.has_stem else []
        if stage == 0:
            return set().union(*maps) if maps else set(self.before or ())
        return set().union(*self.maps[: stage + len(maps)])


def reach_of_all(model_name: str, kwargs: Mapping[str, Any], channels: int) -> Reach:
    """`read_reach` of all the maps that the network has."""
    return read_reach(model_name, all_indices(model_name, kwargs), kwargs, channels)


def read_reach(model_name: str, out_indices: list[int], kwargs: Mapping[str, Any], channels: int) -> Reach:
    """What the maps of a timm network with these arguments depend on, see `Reach`.

    Args:
        model_name: as of `timm.create_model`.
        out_indices: the maps, in the order of the network.
        kwargs: further arguments of it.
        channels: of the image.
    """
    size = made_size(model_name, kwargs)
    try:
        net = meta_network(model_name, out_indices, kwargs)
        return _read(net, out_indices, torch.empty(1, channels, *size, device="meta"))
    except (RuntimeError, NotImplementedError):
        # It looks at values on its way; random ones will do, and a small image if it takes one.
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            net = create(model_name, out_indices, kwargs).eval()
            try:
                return _read(net, out_indices, torch.randn(1, channels, *(max(side // 8, 1) for side in size)))
            except (RuntimeError, AssertionError, ValueError):
                return _read(net, out_indices, torch.randn(1, channels, *size))


def _read(net: nn.Module, out_indices: list[int], image: Tensor) -> Reach:
    reach = Reach(net, out_indices)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    modules = dict(net.named_modules())
    info: Any = net.feature_info
    reach.stages = [_stage(entry["module"]) for entry in info.info if entry["module"]]
    taps = [_module(modules, tap) for tap in reach.stages]
    inputs: dict[str, set[str]] = {}

    def before(module: nn.Module, args: tuple[Any, ...]) -> None:
        name = where[id(module)]
        for tap in taps:
            if tap is not None and tap not in inputs and (name + ".").startswith(tap + "."):
                inputs[tap] = _leaves(args, names)
        versions.append([value._version for value in _tensors(args)])

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        reach.calls[where[id(module)]] += 1
        if versions.pop() != [value._version for value in _tensors(args)]:
            reach.in_place.add(where[id(module)])

    where = {id(module): name for name, module in modules.items()}
    versions: list[list[int]] = []
    handles = [hook for part in modules.values() if part is not net for hook in _hooks(part, before, after)]
    with torch.enable_grad():
        maps = as_maps(net(image), channels_last=False)
    for handle in handles:
        handle.remove()
    reach.shapes = [tuple(value.shape) for value in maps]
    reach.maps = [_leaves(value, names) for value in maps]
    reach.has_stem = _has_stem(reach, taps, inputs, modules)
    reach.stages = reach.stages[1:] if reach.has_stem else reach.stages
    first = taps[0]
    reach.before = inputs.get(first) if first is not None else None
    return reach


def _hooks(part: nn.Module, before: Any, after: Any) -> list[Any]:
    return [part.register_forward_pre_hook(before), part.register_forward_hook(after)]


def _has_stem(
    reach: Reach, taps: Sequence[str | None], inputs: Mapping[str, set[str]], modules: Mapping[str, nn.Module]
) -> bool:
    """Whether the first map is that of the stem: "act1" before "layer1", "stem" before "s1".

    Or what takes the image itself, whatever its name; or what adds nothing to its input, as the ReLU after VGG's first
    convolution. A list of blocks is none.
    """
    if len(reach.maps) < 2 or len(reach.stages) < 2:
        return False
    first = taps[0]
    if first is not None and isinstance(modules[first], nn.ModuleList):
        return False
    names = [re.sub(r"\d+", "", stage) for stage in reach.stages[:2]]
    given = inputs.get(first) if first is not None else None
    return names[0] != names[1] or given in (set(), reach.maps[0])


def _stage(module: str) -> str:
    match = STAGE.match(module)
    return match[0] if match else module


def _module(modules: Mapping[str, nn.Module], tap: str) -> str | None:
    """The name of a tap's module in the network that timm wraps, None where it has another one."""
    names = [tap, *(re.sub(r"^block\b", own, tap) for own in ("blocks", "stages"))]
    candidates = [
        candidate
        for name in names
        for candidate in (name, name.replace(".", "_", 1), *(f"{root}.{name}" for root in ("model", "body")))
    ]
    candidates.append(f"graph_module.{tap}")
    return next((candidate for candidate in candidates if candidate in modules), None)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [tensor for item in value for tensor in _tensors(item)] if isinstance(value, list | tuple) else []


def _leaves(value: Any, names: Mapping[int, str]) -> set[str]:
    """The parameters that one or more tensors are computed from."""
    pending = [tensor.grad_fn for tensor in _tensors(value)]
    seen: set[Any] = set()
    found = set()
    while pending:
        step: Any = pending.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        variable = getattr(step, "variable", None)
        if id(variable) in names:
            found.add(names[id(variable)])
        pending += [below for below, _ in step.next_functions]
    return found
