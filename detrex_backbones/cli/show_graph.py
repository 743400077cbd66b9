"""`detrex-backbones show --graph`: the stages of a backbone as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detrex_backbones.cli.common import print_note
from detrex_backbones.errors import ArgumentError, DetrexBackbonesError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor, nn

__all__ = ["Stage", "draw_graph", "stages_of"]

FORMATS = (".png", ".svg")
TALLEST, LOWEST, STEP, WIDTH = 3.0, 0.8, 1.75, 1.35  # of boxes, inches
DEPTH, LINE = 0.35, 0.16  # from the tallest box to the names of the maps, and of a line there, inches
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
    modules = _top_modules(backbone)
    inputs, outputs, maps = _record(backbone, modules, channels, size)
    made = list(outputs.values())
    stages = [
        Stage(name, _blocks(modules[name]), tuple(value.shape[1:]), _source(inputs[name], made[:place]), [])
        for place, (name, value) in enumerate(outputs.items())
    ]
    for name, value in maps.items():
        _place(stages, made, name, value)
    return stages


def _record(
    backbone: nn.Module, modules: Mapping[str, nn.Module], channels: int, size: tuple[int, int]
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """What each module takes first and gives last, in running order, and the backbone's maps."""
    import torch

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
            return inputs, outputs, backbone(torch.empty(1, channels, *size, device="meta"))
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
    import torch

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


def draw_graph(
    backbone: nn.Module, channels: int, size: tuple[int, int], maps: Sequence[Mapping[str, Any]], file: str | Path
) -> None:
    """Write the picture: a box for each stage, as high as what it gives, and below it the maps that come out.

    Args:
        backbone: on the meta device, in evaluation mode.
        channels: of the image.
        size: height and width of the image in pixels.
        maps: dicts of name, channels, stride, height, width and receptive_field.
        file: a .png or .svg.

    Raises:
        ArgumentError: another kind of file.
        DetrexBackbonesError: the file can't be written.
    """
    path = Path(file)
    if path.suffix.lower() not in FORMATS:
        raise ArgumentError(f"--graph {str(file)!r}: the picture can be {' or '.join(FORMATS)}.")
    stages = stages_of(backbone, channels, size)
    rows = {row["name"]: row for row in maps}
    labels = [_label(stage.shape, size, _known(stage, rows)) for stage in stages]
    heights = [max(TALLEST / max(stride, 1) ** 0.5, LOWEST) for _, stride in labels]
    axis, figure = _canvas(len(stages) + 1, max(heights), max(len(stage.maps) for stage in stages))
    axis.text(0.3, TALLEST / 2 + 0.6, f"{_title(backbone)}, {size[0]} x {size[1]} pixels", fontsize=13)
    _box(axis, 0, TALLEST, "image", f"{channels} channels\n{size[0]} x {size[1]}", color="#e8eaed")
    tops = [TALLEST / 2]
    for place, (stage, (label, _), height) in enumerate(zip(stages, labels, heights, strict=True), start=1):
        blocks = f" ({stage.blocks} blocks)" if stage.blocks > 1 else ""
        _box(axis, place, height, stage.name, label + blocks.replace(" (", "\n("), color="#cfe2ff")
        tops.append(height / 2)
        _arrow(axis, stage.source + 1, place, tops)
        _outputs(axis, place, height, max(heights), [rows[name] for name in stage.maps])
    try:
        figure.savefig(path, dpi=110, bbox_inches="tight", pad_inches=0.2)
    except OSError as error:
        raise DetrexBackbonesError(f"--graph {str(file)!r} can't be written: {error}.") from error
    print_note(f"wrote {path}")


def _canvas(boxes: int, tallest: float, maps: int) -> tuple[Any, Figure]:
    """An empty picture in inches, with place for so many boxes in a row, and below the tallest for so many maps."""
    from matplotlib.figure import Figure

    across, top = STEP * boxes + 0.5, TALLEST / 2 + 0.9
    below = max(TALLEST, tallest + 2 * (DEPTH + 0.1 + maps * 4 * LINE)) / 2 + 0.1
    figure = Figure(figsize=(across, top + below))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    axis.set(xlim=(0, across), ylim=(-below, top))
    return axis, figure


def _title(backbone: nn.Module) -> str:
    """Its class, and the model's name where it or what it stands around has one."""
    name = getattr(getattr(backbone, "net", backbone), "model_name", "")
    return f"{type(backbone).__name__} {name}".strip()


_ARROW = {"arrowstyle": "-|>", "color": "#57606a", "shrinkA": 0, "shrinkB": 0}


def _known(stage: Stage, rows: Mapping[str, Mapping[str, Any]]) -> int | None:
    """The channels, where a map that comes out here tells them."""
    return next((rows[name]["channels"] for name in stage.maps), None)


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


def _arrow(axis: Any, start: int, end: int, tops: Sequence[float]) -> None:
    """From box to box; over those between, from top to top."""
    left, right = start * STEP + 0.3, end * STEP + 0.3
    if end - start == 1:
        axis.annotate("", (right, 0), (left + WIDTH, 0), arrowprops=_ARROW)
        return
    ends = (right + WIDTH / 2, tops[end]), (left + WIDTH / 2, tops[start])
    axis.annotate("", *ends, arrowprops={**_ARROW, "connectionstyle": "arc3,rad=-0.3"})


def _box(axis: Any, place: int, height: float, title: str, text: str, color: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    left = place * STEP + 0.3
    style = "round,pad=0,rounding_size=0.06"
    axis.add_patch(
        FancyBboxPatch((left, -height / 2), WIDTH, height, boxstyle=style, facecolor=color, edgecolor="#57606a")
    )
    middle = left + WIDTH / 2
    axis.text(middle, TALLEST / 2 + 0.2, title, ha="center", fontsize=10, fontweight="bold")
    axis.text(middle, 0, text, ha="center", va="center", fontsize=8.5, linespacing=1.3)


def _outputs(axis: Any, place: int, height: float, tallest: float, rows: Sequence[Mapping[str, Any]]) -> None:
    """The maps that come out of a box, all at the same depth: below the tallest of the boxes."""
    if not rows:
        return
    middle, bottom = place * STEP + 0.3 + WIDTH / 2, -tallest / 2 - DEPTH
    axis.annotate("", (middle, bottom), (middle, -height / 2), arrowprops={**_ARROW, "color": "#1a7f37"})
    words = [f"{row['name']}: {row['channels']} channels\nstride {row['stride']}\nsees {_sees(row)}" for row in rows]
    axis.text(middle, bottom - 0.08, "\n\n".join(words), ha="center", va="top", fontsize=8.5, color="#1a7f37")


def _sees(row: Mapping[str, Any]) -> str:
    field = row["receptive_field"]
    return f"{field} pixels" if isinstance(field, int) else str(field)
