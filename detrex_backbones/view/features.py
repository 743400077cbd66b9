"""Feature maps of a photo, and a picture of them over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from detrex_backbones.kinds import kinds_checked
from detrex_backbones.text import visible
from detrex_backbones.view.colours import Layer, Place, layers_of, parse_draw
from detrex_backbones.view.receptive_field import follow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from detrex_backbones.backbones import FeatureExtractor

__all__ = ["draw_features", "draw_sheet", "extract_maps", "sample_photo"]

PANEL = 2.7, 3.4  # inches, the most that one is wide and high
SMALL = 1.3, 1.3  # on a sheet
STRIP = 4  # times as long as wide
LONGER, LONGEST = 2.4, 20.0  # the length of a strip: to that of a panel, and in inches
THIN = 0.3  # inches across a strip, if LONGEST allows
SCREEN, STRIP_SCREEN = 640, 2000  # pixels of the longer side, more than any panel has
VEIL = 0.68  # how much of the colour is the map's; the photo shines through


def sample_photo() -> Path:
    """The photo of Grace Hopper that matplotlib ships: a file to try things on without a network."""
    from matplotlib import cbook

    return Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))


def extract_maps(extractor: FeatureExtractor, photo: Any) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The feature maps of one photo, and where they lie in it.

    Args:
        extractor: put into evaluation mode.
        photo: (H, W) or (H, W, C) array, as `FeatureExtractor` takes it.

    Returns:
        name -> map (C, H, W), and name -> the photo's row (and column), in pixels, that the middle of the map's first
        row lies at. A classifier's scores are no map.
    """
    extractor.eval()
    with torch.inference_mode():
        maps, fields = follow(extractor.backbone, extractor.preprocess([photo]))
    strides = {name: shape.stride or 1 for name, shape in extractor.output_shape().items()}
    centres = {name: field.centre(strides[name]) for name, field in fields.items()}
    return {name: value[0] for name, value in maps.items() if value.dim() == 4}, centres


def draw_features(
    photo: Any,
    maps: Mapping[str, Tensor],
    strides: Mapping[str, int],
    centres: Mapping[str, float],
    draw: str = "norm",
) -> Figure:
    """The photo, and each map over it.

    A map lies where its numbers come from: a pixel of it is as large as its stride, and sits where the convolutions
    and their padding put it; those at the edge reach to it. What the image was padded with is cut off.

    Args:
        photo: (H, W) or (H, W, C) array.
        maps: name -> (C, H, W).
        strides: name -> input pixels that a pixel of the map stands for; 0 where that isn't known.
        centres: name -> the photo's row (and column) that the middle of the map's first row lies at; the middle of
            a cell where it isn't there.
        draw: "norm" over the channels; "pca", three principal components as colours; "similarity=X,Y", the cosine to
            the point at that pixel of the photo; "channels=K", the K channels that vary most.

    Returns:
        A figure that `savefig` writes and a notebook shows.

    Raises:
        ArgumentError: an unknown `draw`.
        InputError: a point outside of the photo.
    """
    from matplotlib.figure import Figure

    how = parse_draw(draw)
    places = {name: _place(strides[name], centres.get(name)) for name in maps}
    (layers,) = layers_of([maps], places, how)
    form = _form(photo.shape, [len(drawn) for drawn in layers.values()], PANEL)
    figure = Figure(figsize=((form.width + 0.75) * form.columns, form.rows * (form.height + 0.6)), layout="constrained")
    first, *others = form.axes_of(figure)
    shown = _screen(photo)
    _photo(first, shown, photo.shape, form.title("photo", f"{photo.shape[0]} x {photo.shape[1]}"))
    panels = [(name, layer) for name, drawn in layers.items() for layer in drawn]
    for axis, (name, layer) in zip(others, panels, strict=True):
        axis.set_title(form.title(f"{name}, stride {strides[name] or '?'}", layer.title), fontsize=9)
        image = _overlay(axis, shown, photo.shape, layer, places[name])
        if layer.values.ndim == 2:
            ticks = [*layer.limits] if form.wide else None  # there is no height for more
            bar = figure.colorbar(image, ax=axis, shrink=0.7, aspect=3 if form.wide else 12, pad=0.02, ticks=ticks)
            bar.ax.tick_params(labelsize=7)
        if how.kind == "similarity":
            axis.plot(*how.point, "+", color="white", markersize=11, markeredgewidth=2)
    return figure


@kinds_checked
def draw_sheet(
    photos: Mapping[str, Any],
    maps: Sequence[Mapping[str, Tensor]],
    strides: Mapping[str, int],
    draw: str = "norm",
    large: bool = False,
    caption: str = "",
) -> Figure:
    """A contact sheet: a row for each image, with its maps over it; of a wide strip they lie below one another.

    Args:
        photos: name -> (H, W) or (H, W, C) array.
        maps: of each photo, name -> (C, h, w).
        strides: as of `draw_features`.
        draw: as of `draw_features`; principal components are those of all images.
        large: panels as large as those of `draw_features`, for a few images.
        caption: above all of them.

    Returns:
        A figure.
    """
    from matplotlib.figure import Figure

    places = {name: _place(stride, None) for name, stride in strides.items()}
    layers = layers_of(maps, places, parse_draw(draw))
    box, points = (PANEL, 9) if large else (SMALL, 6)
    forms = [_form(photo.shape, [1] * len(maps[0]), box) for photo in photos.values()]
    heights = [form.rows * (max(form.height, THIN) + 0.3) for form in forms]
    width = max(form.columns * (max(form.width, box[0]) + 0.2) for form in forms)
    figure = Figure(figsize=(width, sum(heights) + (0.3 if caption else 0)), layout="constrained")
    figure.suptitle(caption, fontsize=points + 2)
    parts = figure.subfigures(len(photos), 1, squeeze=False, height_ratios=heights)[:, 0]
    named = False
    for part, form, (title, photo), drawn in zip(parts, forms, photos.items(), layers, strict=True):
        shown = _screen(photo)
        first, *others = form.axes_of(part)
        _photo(first, shown, photo.shape, _shortened(title), points)
        for axis, (name, (layer, *_)) in zip(others, drawn.items(), strict=True):
            axis.set_title("" if named and form.rows == 1 else name, fontsize=points)
            _overlay(axis, shown, photo.shape, layer, places[name])
        named = named or form.rows == 1
    return figure


@dataclass(frozen=True)
class _Form:
    """How the panels of one image lie: the row and column of each, and how wide and high each is in inches."""

    cells: Sequence[tuple[int, int]]
    width: float
    height: float
    wide: bool = False

    rows = property(lambda self: 1 + max(row for row, _ in self.cells))
    columns = property(lambda self: 1 + max(column for _, column in self.cells))

    def axes_of(self, figure: Any) -> list[Any]:
        """The axes of the panels, all without frames."""
        axes = figure.subplots(self.rows, self.columns, squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        return [axes[cell] for cell in self.cells]

    def title(self, *lines: str) -> str:
        """In one line where the panel is a wide one."""
        return (", " if self.wide else "\n").join(lines)


def _form(size: Sequence[int], layers: Sequence[int], box: tuple[float, float]) -> _Form:
    """The photo and, right of it, a column for each map; a strip's lie along one another, so that they can be read.

    Args:
        size: height and width of the photo.
        layers: how many there are of each map.
        box: inches, the most that a panel is wide and high unless it is a strip.
    """
    cells = [(0, 0), *((row, column) for column, count in enumerate(layers, start=1) for row in range(count))]
    ratio = _ratio(size)
    if ratio < STRIP:
        scale = min(box[0] / size[1], box[1] / size[0])
        return _Form(cells, max(size[1] * scale, box[0] / 2), size[0] * scale)  # titles have to fit
    length = min(max(LONGER * max(box), THIN * ratio), LONGEST)
    if size[1] > size[0]:
        return _Form([(place, 0) for place in range(len(cells))], length, max(length / ratio, THIN), wide=True)
    return _Form([(0, place) for place in range(len(cells))], max(length / ratio, box[0] / 2), length)


def _shortened(name: str) -> str:
    name = visible(name)
    return name if len(name) <= 32 else f"...{name[-29:]}"


def _ratio(size: Sequence[int]) -> float:
    return max(size[:2]) / min(size[:2])


def _place(stride: int, centre: float | None) -> Place:
    middle = (stride - 1) / 2 if centre is None else centre
    return Place(stride, middle - stride / 2)


def _photo(axis: Any, shown: Any, size: Sequence[int], title: str, points: int = 9) -> None:
    axis.imshow(shown, cmap="gray", extent=_whole(size))
    axis.set_title(title, fontsize=points)


def _whole(size: Sequence[int]) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of the photo in its pixels, the first of which has its middle at 0."""
    return -0.5, size[1] - 0.5, size[0] - 0.5, -0.5


def _overlay(axis: Any, shown: Any, size: Sequence[int], layer: Layer, place: Place) -> Any:
    """The map in colours over the photo in grey, cut to the photo."""
    grey = shown if shown.ndim == 2 else shown[..., :3].mean(axis=2)
    axis.imshow(grey, cmap="gray", vmin=-160, vmax=330, extent=_whole(size))  # pale, so that the colours are the map's
    values = layer.values
    left, right, bottom, top = _extent(values.shape[:2], size, place)
    across, down = (right - left) / values.shape[1], (bottom - top) / values.shape[0]
    around = left - across, right + across, bottom + down, top - down
    reaching = np.pad(values, [(1, 1), (1, 1), (0, 0)][: values.ndim], mode="edge")
    low, high = layer.limits
    colours: dict[str, Any] = {"cmap": "viridis", "vmin": low, "vmax": high, "alpha": VEIL, "interpolation": "nearest"}
    image = axis.imshow(reaching, extent=around, **colours)
    axis.set(xlim=(-0.5, size[1] - 0.5), ylim=(size[0] - 0.5, -0.5))
    return image


def _extent(cells: Sequence[int], size: Sequence[int], place: Place) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of a map in pixels of the photo."""
    if not place.stride:  # all that is known is that it is of the whole photo
        return _whole(size)
    return place.start, place.start + cells[1] * place.stride, place.start + cells[0] * place.stride, place.start


def _screen(photo: Any) -> Any:
    """The photo as 8-bit grey or RGB, no larger than it is drawn."""
    side = SCREEN if _ratio(photo.shape) < STRIP else STRIP_SCREEN
    step = max(1, max(photo.shape[:2]) // (2 * side))  # the rest is left to Pillow, which takes a mean
    photo = photo[::step, ::step]
    photo = photo / 257 if photo.dtype == np.uint16 else photo
    if photo.ndim == 3 and photo.shape[2] <= 2:  # grey, grey and alpha
        photo = photo[..., 0]
    shown = np.clip(photo, 0, 255).astype(np.uint8)
    if max(shown.shape[:2]) <= side:
        return shown
    from PIL import Image

    image = Image.fromarray(shown)
    image.thumbnail((side, side))
    return np.asarray(image)
