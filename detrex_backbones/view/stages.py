"""The stages of a backbone, and a picture of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from detrex_backbones.backbones.base import Backbone
from detrex_backbones.view.receptive_field import UNKNOWN, Field, follow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Stage", "draw_stages", "stages_of"]

TALLEST, LOWEST, STEP, WIDTH = 3.0, 0.8, 1.75, 1.35  # of boxes, inches
GREY, GREEN = "#57606a", "#1a7f37"
EXTRA_TOKENS = 16


@dataclass
class Stage:
    """One part of the network, in the order in which it runs.

    Args:
        name: of the module, inside the backbone.
        blocks: how many it holds, 0 for a single layer.
        shape: of what it gives, without the batch: (C, H, W), (H, W, C) or (tokens, C), as the network has it.
        source: place of the stage that it takes its input from, -1 for the image.
        maps: names of the backbone's maps that come out here.
    """

    name: str
    blocks: int
    shape: tuple[int, ...]
    source: int
    maps: list[str]


def stages_of(backbone: nn.Module, channels: int, size: tuple[int, int]) -> list[Stage]:
    """The modules at the top of a backbone on the meta device, in running order."""
    return _look_into(backbone, channels, size)[0]


def _look_into(
    backbone: nn.Module, channels: int, size: tuple[int, int]
) -> tuple[list[Stage], dict[str, Tensor], dict[str, Field]]:
    """The stages, the backbone's maps, and the receptive fields of those that could be followed."""
    modules = _top_modules(backbone)
    inputs, outputs, maps, fields = _record(backbone, modules, torch.empty(1, channels, *size, device="meta"))
    made = list(outputs.values())
    stages = [
        Stage(name, _blocks(modules[name]), tuple(value.shape[1:]), _source(inputs[name], made[:place]), [])
        for place, (name, value) in enumerate(outputs.items())
    ]
    for name, value in maps.items():
        _place(stages, made, name, value)
    return stages, maps, fields


def _record(
    backbone: nn.Module, modules: Mapping[str, nn.Module], image: Tensor
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor], dict[str, Field]]:
    """What each module takes first and gives last, in running order; the backbone's maps and their fields."""
    inputs: dict[str, Any] = {}
    outputs: dict[str, Tensor] = {}

    def keep(name: str, given: tuple[Any, ...], output: Any) -> None:
        value = _last(output)
        if value is not None:
            inputs.setdefault(name, _last(given))
            outputs.pop(name, None)  # a module that runs again moves back
            outputs[name] = value

    lists = (torch.nn.ModuleList, torch.nn.Sequential)
    hooks = [
        part.register_forward_hook(lambda _, given, output, name=name: keep(name, given, output))
        for name, module in modules.items()
        # A list of blocks may be gone through without being called itself.
        for part in [*(module if isinstance(module, lists) else []), module]
    ]
    try:
        with torch.no_grad():
            return inputs, outputs, *follow(backbone, image)
    finally:
        for hook in hooks:
            hook.remove()


def _last(value: Any) -> Tensor | None:
    """The tensor that a module gave or took: the last one with positions, of several."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, list | tuple):
        return next((found for found in map(_last, reversed(value)) if found is not None), None)
    return value if hasattr(value, "dim") and value.dim() >= 3 else None


def _source(given: Any, earlier: Sequence[Tensor]) -> int:
    """The place of the stage whose output was taken; the one before, where what was taken has been changed between."""
    return next((place for place, value in enumerate(earlier) if value is given), len(earlier) - 1)


def _top_modules(backbone: nn.Module) -> dict[str, nn.Module]:
    children = dict(backbone.named_children())
    while len(children) == 1:  # a wrapper around a single network is looked through
        below = dict(next(iter(children.values())).named_children())
        if not below:
            break
        children = below
    # A norm of its own has vectors alone: it is no stage.
    large = {name for name, child in children.items() if any(value.dim() > 1 for value in child.parameters())}
    found = {name: child for name, child in children.items() if name in large or _moves(child)}
    return dict(part for name, child in found.items() for part in _stages_inside(name, child))


def _stages_inside(name: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    """A list of lists of blocks is a list of stages; anything else is one."""
    lists = (torch.nn.ModuleList, torch.nn.Sequential)
    if isinstance(module, lists) and len(module) and all(isinstance(child, lists) for child in module):
        return [(f"{name}.{place}", child) for place, child in enumerate(module)]
    return [(name, module)]


def _moves(module: nn.Module) -> bool:
    """Whether a module without parameters changes the size all the same."""
    return "Pool" in type(module).__name__


def _blocks(module: nn.Module) -> int:
    inner: Any = getattr(module, "blocks", module)
    children = list(inner.children())
    alike = hasattr(inner, "__len__") and len({type(child) for child in children}) == 1
    return len(inner) if alike and any(len(list(child.children())) > 1 for child in children) else 0  # not layers


def _place(stages: list[Stage], outputs: Sequence[Tensor], name: str, value: Tensor) -> None:
    """Write a map's name at the stage that it comes from: the same tensor, else as many numbers, else the last."""
    same = [index for index, output in enumerate(outputs) if output is value]
    # Class and register tokens are in what the blocks give, and not in the map.
    more = [output.numel() - value.numel() for output in outputs]
    alike = [index for index, count in enumerate(more) if 0 <= count <= EXTRA_TOKENS * value.shape[1]]
    for index in (same or alike or list(range(len(stages))))[-1:]:
        stages[index].maps.append(name)


def draw_stages(backbone: Backbone, size: tuple[int, int] = (224, 224), channels: int = 3) -> Figure:
    """A box for each stage, as high as what it gives, and below it the maps that come out, with what they see.

    Args:
        backbone: on the meta device, in evaluation mode.
        size: height and width of the image in pixels.
        channels: of the image.

    Returns:
        A figure that `savefig(path, bbox_inches="tight")` writes and a notebook shows.
    """
    from matplotlib.figure import Figure

    stages, maps, fields = _look_into(backbone, channels, size)
    words = _map_words(backbone, maps, fields)
    known = [next((maps[name].shape[1] for name in stage.maps), None) for stage in stages]
    labels = [_label(stage.shape, size, depth) for stage, depth in zip(stages, known, strict=True)]
    heights = [TALLEST, *(max(TALLEST / max(stride, 1) ** 0.5, LOWEST) for _, stride in labels)]
    figure = Figure(figsize=(STEP * len(heights), TALLEST))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    axis.set(xlim=(-STEP / 2, STEP * (len(heights) - 0.5)), ylim=(-TALLEST / 2, TALLEST / 2))  # inches
    axis.text(-WIDTH / 2, TALLEST / 2 + 0.6, f"{_title(backbone)}, {size[0]} x {size[1]} pixels", fontsize=13)
    places = [STEP * place for place in range(len(heights))]
    colours = ["#e8eaed", *["#cfe2ff"] * len(stages)]
    axis.bar(places, heights, WIDTH, [-height / 2 for height in heights], color=colours, edgecolor=GREY)
    _write_box(axis, 0, "image", f"{channels} channels\n{size[0]} x {size[1]}")
    for place, (stage, (label, _)) in enumerate(zip(stages, labels, strict=True), start=1):
        blocks = f"\n({stage.blocks} blocks)" if stage.blocks > 1 else ""
        _write_box(axis, places[place], stage.name, label + blocks)
        _draw_arrow(axis, stage.source + 1, place, heights)
        if stage.maps:
            ends = -heights[place] / 2, -max(heights[1:]) / 2 - 0.35  # all maps at the same depth
            _write_maps(axis, places[place], *ends, [words[name] for name in stage.maps])
    return figure


def _map_words(backbone: Backbone, maps: Mapping[str, Tensor], fields: Mapping[str, Field]) -> dict[str, str]:
    """What is written below a stage about each map."""
    words = {}
    for name, shape in backbone.output_shape().items():
        field = fields[name].describe(shape.stride or 0) if name in fields else UNKNOWN
        sees = f"{field} pixels" if isinstance(field, int) else field
        words[name] = f"{name}: {maps[name].shape[1]} channels\nstride {shape.stride}\nsees {sees}"
    return words


def _write_box(axis: Any, middle: float, title: str, text: str) -> None:
    axis.text(middle, TALLEST / 2 + 0.2, title, ha="center", fontsize=10, fontweight="bold")
    axis.text(middle, 0, text, ha="center", va="center", fontsize=8.5, linespacing=1.3)


def _write_maps(axis: Any, middle: float, bottom: float, below: float, words: Sequence[str]) -> None:
    arrow = {"arrowstyle": "<|-", "color": GREEN, "relpos": (0.5, 1), "shrinkA": 0, "shrinkB": 0}
    style = {"ha": "center", "va": "top", "fontsize": 8.5, "color": GREEN}
    axis.annotate("\n\n".join(words), (middle, bottom), (middle, below), arrowprops=arrow, **style)


def _draw_arrow(axis: Any, start: int, end: int, heights: Sequence[float]) -> None:
    """From box to box; over those between, from top to top."""
    arrow = {"arrowstyle": "-|>", "color": GREY, "shrinkA": 0, "shrinkB": 0}
    if end - start == 1:
        axis.annotate("", (STEP * end - WIDTH / 2, 0), (STEP * start + WIDTH / 2, 0), arrowprops=arrow)
        return
    ends = (STEP * end, heights[end] / 2), (STEP * start, heights[start] / 2)
    axis.annotate("", *ends, arrowprops={**arrow, "connectionstyle": "arc3,rad=-0.3"})


def _title(backbone: nn.Module) -> str:
    """Its class, and the model's name where it or what it stands around has one."""
    name = getattr(getattr(backbone, "net", backbone), "model_name", "")
    return f"{type(backbone).__name__} {name}".strip()


def _label(shape: tuple[int, ...], size: tuple[int, int], channels: int | None) -> tuple[str, float]:
    """A stage's channels, size and stride in words, and the stride."""
    if len(shape) == 2:
        stride = (size[0] * size[1] / max(shape[0], 1)) ** 0.5
        return f"{shape[1]} channels\n{shape[0]} tokens", stride
    # Some transformers have the channels last: then it is the last number that isn't a side of the image's shape.
    first = abs(shape[1] * size[1] - shape[2] * size[0]) <= max(size)
    last = shape[2] == channels or (channels is None and not first)
    depth, height, width = (shape[2], *shape[:2]) if last and shape[0] != channels else shape
    stride = size[0] / max(height, 1)
    return f"{depth} channels\n{height} x {width}\nstride {stride:.3g}", stride
