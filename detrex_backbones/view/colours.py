"""From a map's many channels to what can be seen: norms, principal components, similarities, single channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from detrex_backbones.errors import ArgumentError, InputError, closest
from detrex_backbones.text import LONGEST_PATH, visible

__all__ = ["Draw", "Layer", "Place", "check_draw", "layers_of", "parse_draw"]

KINDS = ("norm", "pca", "similarity", "channels")
ALLOWED = "norm, pca, similarity=X,Y (a pixel of the photo), channels=K"
MOST_POINTS = 1000  # of a map that its principal components are found from
FLAT = 1e-3  # of the mean: smaller differences are rounding, as of the norms behind a layer norm


@dataclass(frozen=True)
class Draw:
    """How maps are drawn; see `parse_draw`."""

    kind: str = "norm"
    point: tuple[int, int] = (0, 0)
    channels: int = 1


@dataclass(frozen=True)
class Place:
    """Where a map lies in its photo, in pixels: `stride` (0 for not known), and `start`, the edge of its first cell."""

    stride: int
    start: float


@dataclass(frozen=True)
class Layer:
    """One thing to draw of a map.

    Args:
        title: what it is.
        values: (h, w), or (h, w, 3) of colours from 0 to 1.
        limits: the values of the first and the last colour.
    """

    title: str
    values: Any
    limits: tuple[float, float] = (0.0, 1.0)


def parse_draw(text: str) -> Draw:
    """`--draw`: "norm", "pca", "similarity=120,80" or "channels=4".

    Raises:
        ArgumentError: something else.
    """
    kind, _, rest = text.partition("=")
    numbers = [int(word) for word in rest.split(",") if word.strip().isdecimal()]
    if kind in ("norm", "pca") and not rest:
        return Draw(kind)
    if kind == "similarity" and len(numbers) == 2:
        return Draw(kind, point=(numbers[0], numbers[1]))
    if kind == "channels" and len(numbers) == 1 and numbers[0]:
        return Draw(kind, channels=numbers[0])
    raise ArgumentError(f"draw={text!r} is not known.{closest(kind, KINDS)} Allowed: {ALLOWED}.")


def check_draw(text: str, size: Sequence[int], name: str) -> None:
    """Raise before a network runs where its maps could not be drawn so.

    Args:
        text: as of `parse_draw`.
        size: height and width of the photo.
        name: of the photo.

    Raises:
        ArgumentError: `text` is not known.
        InputError: its point is outside of the photo.
    """
    draw = parse_draw(text)
    x, y = draw.point
    if draw.kind == "similarity" and not (x < size[1] and y < size[0]):
        raise InputError(
            f"draw={text!r} (X,Y in pixels, from 0): the point lies outside of '{visible(name, LONGEST_PATH)}', whose "
            f"width is {size[1]} and whose height is {size[0]}."
        )


def layers_of(
    images: Sequence[Mapping[str, Tensor]], places: Mapping[str, Place], draw: Draw
) -> list[dict[str, list[Layer]]]:
    """What to draw of every map of every image.

    Args:
        images: name -> map (C, h, w), each with the same names.
        places: where the maps lie.
        draw: how.

    Returns:
        For each image name -> layers. Principal components and their colours are the same in all images, and turned so
        that they agree between maps as far as they can.

    Raises:
        InputError: a point outside of a map.
    """
    if draw.kind == "pca":
        return _components(images)
    return [{name: _layers(name, value, places[name], draw) for name, value in maps.items()} for maps in images]


def _layers(name: str, value: Tensor, place: Place, draw: Draw) -> list[Layer]:
    numbers = value.detach().float().cpu()
    if draw.kind == "norm":
        norms = numbers.norm(dim=0).numpy()
        return [Layer(f"norm of {len(numbers)} channels", norms, _limits(norms))]
    if draw.kind == "similarity":
        if not place.stride:
            raise InputError(f"the stride of the map {name} is not known, so no point can be found in it.")
        row, column = (_cell(at, place, side) for at, side in zip(draw.point[::-1], numbers.shape[1:], strict=True))
        if row is None or column is None:
            raise InputError(f"the point {draw.point[0]},{draw.point[1]} (X,Y) lies outside of the map {name}.")
        cosine = F.cosine_similarity(numbers, numbers[:, row, column, None, None], dim=0).numpy()
        return [Layer("cosine similarity to +", cosine, (min(_limits(cosine)[0], 1 - FLAT), 1.0))]
    varied = numbers.flatten(1).std(dim=1).argsort(descending=True)[: draw.channels].tolist()
    return [Layer(f"channel {index}", numbers[index].numpy(), _limits(numbers[index].numpy())) for index in varied]


def _limits(values: Any) -> tuple[float, float]:
    """The first and the last percentile: a few outliers would leave the rest of the map in one colour."""
    low, high = (float(value) for value in np.nanpercentile(values, (1, 99)))
    if low == high:  # nothing but outliers
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
    least = FLAT * abs(low + high) / 2
    return (low, high) if high - low > least else (low - least, high + least)


def _cell(at: int, place: Place, cells: int) -> int | None:
    cell = int((at - place.start) // place.stride)
    return min(max(cell, 0), cells - 1) if -1 <= cell <= cells else None


def _components(images: Sequence[Mapping[str, Tensor]]) -> list[dict[str, list[Layer]]]:
    scores = {name: _scores([maps[name].detach().float().cpu() for maps in images]) for name in images[0]}
    reference = next(iter(scores.values()))
    layers: list[dict[str, list[Layer]]] = [{} for _ in images]
    for name, own in scores.items():
        turned = _turned(own, reference)
        flat = torch.cat([one.flatten(1) for one in turned], dim=1)
        some = flat[:, :: 1 + flat.shape[1] // 10**6]  # torch's quantile takes no more
        low, high = (some.quantile(bound, dim=1)[:, None, None] for bound in (0.02, 0.98))
        for place, one in enumerate(turned):
            colours = ((one - low) / (high - low).clamp_min(1e-9)).clamp(0, 1)
            layers[place][name] = [Layer("3 principal components", colours.permute(1, 2, 0).numpy())]
    return layers


def _scores(maps: Sequence[Tensor]) -> list[Tensor]:
    """The first three principal components (3, h, w) of the positions of all images, each of variance 1."""
    points = torch.cat([value.flatten(1) for value in maps], dim=1).T
    mean = points.mean(dim=0)
    some = points[:: max(1, len(points) // MOST_POINTS)] - mean
    # By the smaller of the two matrices of products, which have the same eigenvalues.
    if len(some) < some.shape[1]:
        basis = some.T @ torch.linalg.eigh(some @ some.T)[1][:, -3:].flip(1)
    else:
        basis = torch.linalg.eigh(some.T @ some)[1][:, -3:].flip(1)
    basis = F.pad(basis, (0, 3 - basis.shape[1]))  # of fewer than three channels or positions
    scale = (some @ basis).std(dim=0, correction=0).clamp_min(1e-9)
    return [torch.einsum("chw,ck->khw", value - mean[:, None, None], basis / scale) for value in maps]


def _turned(scores: Sequence[Tensor], reference: Sequence[Tensor]) -> list[Tensor]:
    """The components, turned and mirrored to be as near as can be to those of another map (Schoenemann 1966)."""
    if scores is reference:
        return list(scores)
    pairs = zip(reference, scores, strict=True)
    there = [F.adaptive_avg_pool2d(other, (one.shape[-2], one.shape[-1])).flatten(1) for other, one in pairs]
    u, _, v = torch.linalg.svd(torch.cat(there, dim=1) @ torch.cat([one.flatten(1) for one in scores], dim=1).T)
    return [torch.einsum("jk,khw->jhw", u @ v, one) for one in scores]
