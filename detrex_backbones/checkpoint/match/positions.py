"""Tables of positions for another size than the file's, resized as the authors of each family do it.

- `pos_embed`, a row a patch: bicubic, the rows of class and other tokens kept (DeiT, MAE, DINO, ViTDet). Swin's
  `absolute_pos_embed` likewise. Also where it is kept as (1, rows, columns, channels) (SAM), stored so or not.
- `rel_pos_h`, `rel_pos_w`, a row a distance: linear (ViTDet, SAM, MViTv2).
- `relative_position_bias_table`, a row a distance in both directions: bicubic (Swin); with rows for the class token, or
  a plane a head, linear between distances that grow geometrically, as timm does it (BEiT, MaxViT).

No file says what its grid was: it is taken to be square, and a table that can't be is left as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex_backbones.checkpoint.entry import Shapes
from detrex_backbones.checkpoint.match.suffixes import Plan
from detrex_backbones.checkpoint.names.original_files import FilteredTensor
from detrex_backbones.checkpoint.names.readings import Reading

__all__ = [
    "Grid",
    "fit_positions",
    "grids_of",
    "resize_bias_table",
    "resize_distances",
    "resize_grid",
    "take_back_resizing",
]

Grid = tuple[int, int]
"""Rows and columns of a table of positions."""

Change = tuple[Callable[[Tensor], Tensor], str]
"""What makes a table fit, and that in words; the same sentence for the same change."""

ABSOLUTE = ("pos_embed", "absolute_pos_embed")
DISTANCES = ("rel_pos_h", "rel_pos_w")
BIAS = "relative_position_bias_table"
POSITION_TABLES = (*ABSOLUTE, *DISTANCES, BIAS)
BIASES = "biases of positions"
TOKENS = ("cls_token", "dist_token", "reg_token")
FOR_CLASS = 3  # rows of BEiT's tables: patch to class token, class token to patch, and to itself


def grids_of(model: nn.Module) -> dict[str, Grid]:
    """Key of a table in the model -> its grid, for modules that say which they have, as timm's and Swin's do."""
    grids: dict[str, Grid] = {}
    for name, module in model.named_modules():
        place = f"{name}." if name else ""
        patches = _pair(getattr(getattr(module, "patch_embed", None), "grid_size", None))
        window = _pair(getattr(module, "window_size", None))
        if patches:
            grids |= {place + table: patches for table in ABSOLUTE}
        if window:
            grids[place + BIAS] = (2 * window[0] - 1, 2 * window[1] - 1)
    return grids


def fit_positions(plan: Plan, reading: Reading, model: Shapes, grids: Mapping[str, Grid]) -> None:
    """Resize those tables of positions that only their size keeps from fitting.

    Args:
        plan: of the reading; what fits now moves from mismatched to matched.
        reading: its tables are replaced, and `adapted` says how.
        model: name -> shape.
        grids: of the model's tables, see `grids_of`; what isn't there is taken to be square.
    """
    if _is_exchanged(plan, reading, model):
        return
    for key, ours in list(plan.mismatched.items()):
        entry, wanted = reading.named[ours], tuple(model[key])
        change = _change(key, entry.shape, model, grids.get(key)) if entry.values.dtype.is_floating_point else None
        if change is not None:
            function, what = change
            entry.tensor, entry.shape = entry.values.then(function, wanted), wanted
            entry.adapted = "; ".join(filter(None, (entry.adapted, what)))
            plan.matched[key] = plan.mismatched.pop(key)


def _is_exchanged(plan: Plan, reading: Reading, model: Shapes) -> bool:
    """Whether the tables have the model's sizes, at other places: then blocks are exchanged, and no size is another."""
    tables = {key: ours for key, ours in plan.mismatched.items() if key.endswith((*DISTANCES, BIAS))}
    wanted = sorted(tuple(model[key]) for key in tables)
    return bool(tables) and wanted == sorted(tuple(reading.named[ours].shape) for ours in tables.values())


def take_back_resizing(plan: Plan, reading: Reading, model: Shapes, grids: Mapping[str, Grid]) -> None:
    """Give the file's own tables back where a network's reader has resized them: one rule is for all readings.

    Args:
        plan: of the reading; what so no longer fits moves from matched to mismatched.
        reading: its tables are replaced.
        model: name -> shape.
        grids: as of `fit_positions`.
    """
    for key, ours in list(plan.matched.items()):
        entry = reading.named[ours]
        origin = entry.tensor.origin if isinstance(entry.tensor, FilteredTensor) else None
        if origin is None or origin.shape == entry.shape or _change(key, origin.shape, model, grids.get(key)) is None:
            continue
        entry.tensor, entry.shape, entry.adapted = origin, origin.shape, ""
        plan.mismatched[key] = plan.matched.pop(key)


def resize_grid(table: Tensor, old: Grid, new: Grid, tokens: int = 0) -> Tensor:
    """(1, tokens + rows * columns, channels) for another grid, bicubic without antialiasing; tokens stay as they are.

    Args:
        table: of positions.
        old: its grid.
        new: the grid that is wanted.
        tokens: rows before the grid's: of the class token, registers.
    """
    kept, grid = table[:, :tokens], table[:, tokens:]
    planes = grid.float().reshape(1, *old, -1).permute(0, 3, 1, 2)
    planes = F.interpolate(planes, size=new, mode="bicubic", align_corners=False)
    return torch.cat([kept, planes.permute(0, 2, 3, 1).reshape(1, new[0] * new[1], -1).to(table.dtype)], dim=1)


def resize_distances(table: Tensor, length: int) -> Tensor:
    """(2 size - 1, channels) for another size, linear."""
    line = F.interpolate(table.float().t()[None], size=length, mode="linear", align_corners=False)
    return line[0].t().to(table.dtype)


def resize_bias_table(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """(rows * columns, heads) for another window, bicubic; the grids are those of the distances, 2 window - 1."""
    return resize_grid(table[None], old, new)[0]


def _change(key: str, stored: tuple[int, ...], model: Shapes, grid: Grid | None) -> Change | None:
    """What makes a table of this name fit; None where it isn't known how."""
    name = key.rpartition(".")[2]
    wanted = tuple(model[key])
    if name in ABSOLUTE and len(wanted) == 4:
        return _change_planes(stored, wanted)
    if len(stored) != len(wanted):
        return None
    if stored[-1] != wanted[-1] and len(wanted) != 3:
        return None
    if name in ABSOLUTE and len(wanted) == 3 and (stored[0], stored[2]) == (1, wanted[2]):
        beside = (key.removesuffix(name) + token for token in TOKENS)
        tokens = [model[token][1] for token in beside if len(model.get(token, ())) == 3]
        return _change_rows(stored[1], wanted[1], grid, tokens)
    if name in DISTANCES and len(wanted) == 2:
        what = f"relative positions: {stored[0]} -> {wanted[0]}, linear"
        return partial(resize_distances, length=wanted[0]), what
    return _change_bias(stored, wanted, grid) if name == BIAS else None


def _change_rows(stored: int, wanted: int, grid: Grid | None, tokens: list[int]) -> Change | None:
    """For a row a patch, behind those of tokens; `tokens` are the model's, whose rows the table may have or not."""
    counts = [sum(tokens), *tokens[:1], 0] if grid is None else [wanted - grid[0] * grid[1]]
    for count in counts:
        old, new = _square(stored - count), grid or _square(wanted - count)
        if old and new and count >= 0:
            return partial(resize_grid, old=old, new=new, tokens=count), _sentence("positions", old, new, "bicubic")
    return None


def _change_planes(stored: tuple[int, ...], wanted: tuple[int, ...]) -> Change | None:
    """For (1, rows, columns, channels); stored so, or as (1, patches, channels) with a class token's row or without."""
    if (stored[0], stored[-1]) != (1, wanted[3]) or len(stored) not in (3, 4):
        return None
    new = (wanted[1], wanted[2])
    old = (stored[1], stored[2]) if len(stored) == 4 else _square(stored[1]) or _square(stored[1] - 1)
    if old is None:
        return None

    def change(table: Tensor) -> Tensor:
        rows = table.reshape(1, -1, wanted[3])[:, -old[0] * old[1] :]
        return (rows if old == new else resize_grid(rows, old, new)).reshape(wanted)

    return change, "positions: as rows and columns" if old == new else _sentence("positions", old, new, "bicubic")


def _change_bias(stored: tuple[int, ...], wanted: tuple[int, ...], grid: Grid | None) -> Change | None:
    if len(wanted) == 3 and stored[0] == wanted[0]:
        old, new = (stored[1], stored[2]), (wanted[1], wanted[2])
        return partial(_geometric, old=old, new=new, shape=wanted), _sentence(BIASES, old, new, "geometric")
    if len(wanted) != 2:
        return None
    for count in (0, FOR_CLASS):
        square = grid if grid and grid[0] * grid[1] + count == wanted[0] else _square(wanted[0] - count)
        side = _square(stored[0] - count)
        if side and square:
            if count:
                change = partial(_geometric, old=side, new=square, shape=wanted)
                return change, _sentence(BIASES, side, square, "geometric")
            return partial(resize_bias_table, old=side, new=square), _sentence(BIASES, side, square, "bicubic")
    return None


def _geometric(table: Tensor, old: Grid, new: Grid, shape: tuple[int, ...]) -> Tensor:
    """A table of biases whose old distances stand further apart the larger they are; rows behind the grid stay."""
    if len(shape) == 3:
        return _interpolated(table, old, new)
    rows = old[0] * old[1]
    planes = _interpolated(table[:rows].t().reshape(-1, *old), old, new)
    return torch.cat([planes.reshape(shape[1], -1).t(), table[rows:]])


def _interpolated(planes: Tensor, old: Grid, new: Grid) -> Tensor:
    """(heads, rows, columns) at the new distances, linear between the old ones."""
    down, across = (_weights(count, wanted) for count, wanted in zip(old, new, strict=True))
    return (down @ planes.double() @ across.t()).to(planes.dtype)


def _weights(count: int, wanted: int) -> Tensor:
    """(wanted, count): what each of `count` old distances adds to each of `wanted` new ones, which are 1 apart."""
    low, high, reach = 1.01, 1.5, wanted // 2
    while high - low > 1e-6:
        ratio = (low + high) / 2
        low, high = (low, ratio) if sum(ratio**step for step in range(count // 2)) > reach else (ratio, high)
    side = torch.tensor([ratio**step for step in range(count // 2)], dtype=torch.float64).cumsum(0)
    places = torch.cat([-side.flip(0), torch.zeros(1, dtype=torch.float64), side])
    targets = torch.arange(-reach, reach + 1, dtype=torch.float64).clamp(places[0], places[-1])
    right = torch.searchsorted(places, targets).clamp(1, count - 1)
    share = (targets - places[right - 1]) / (places[right] - places[right - 1])
    weights = torch.zeros(wanted, count, dtype=torch.float64)
    weights.scatter_(1, right[:, None], share[:, None])
    return weights.scatter_(1, right[:, None] - 1, 1 - share[:, None])


def _sentence(what: str, old: Grid, new: Grid, how: str) -> str:
    return f"{what}: {old[0]} x {old[1]} -> {new[0]} x {new[1]}, {how}"


def _square(count: int) -> Grid | None:
    """The sides of a square of `count` rows."""
    side = math.isqrt(max(count, 0))
    return (side, side) if side and side * side == count else None


def _pair(value: object) -> Grid | None:
    """Two whole numbers, from what a module calls its size; None for anything else."""
    if isinstance(value, int):
        value = (value, value)
    if isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(side, int) for side in value):
        return (value[0], value[1])
    return None
