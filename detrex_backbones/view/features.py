"""Feature maps of a photo, and a picture of them over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from detrex_backbones.view.receptive_field import follow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from detrex_backbones.backbones import FeatureExtractor

__all__ = ["draw_features", "extract_maps", "sample_photo"]

PANEL = 2.7  # inches, the width of one
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
    photo: Any, maps: Mapping[str, Tensor], strides: Mapping[str, int], centres: Mapping[str, float]
) -> Figure:
    """The photo, then over it each map's mean over the channels, and its most varied channel.

    A map lies where its numbers come from: a pixel of it is as large as its stride, and sits where the convolutions
    and their padding put it; those at the edge reach to it. What the image was padded with is cut off.

    Args:
        photo: (H, W) or (H, W, C) array.
        maps: name -> (C, H, W).
        strides: name -> input pixels that a pixel of the map stands for; 0 where that isn't known.
        centres: name -> the photo's row (and column) that the middle of the map's first row lies at; the middle of
            a cell where it isn't there.

    Returns:
        A figure that `savefig` writes and a notebook shows.
    """
    from matplotlib.figure import Figure

    height, width = photo.shape[:2]
    rows = PANEL * height / width + 0.45
    figure = Figure(figsize=(PANEL * (len(maps) + 1), 2 * rows), layout="constrained")
    axes = figure.subplots(2, len(maps) + 1, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    axes[0, 0].imshow(_displayable(photo), cmap="gray")
    axes[0, 0].set_title(f"photo\n{height} x {width}", fontsize=10)
    axes[1, 0].text(0, 1, "above: mean over channels\n\nbelow: the channel that\nvaries most", va="top", fontsize=10)
    for column, (name, value) in enumerate(maps.items(), start=1):
        channels = value.detach().float().cpu()
        varied = int(channels.flatten(1).std(dim=1).argmax())
        extent = _extent(channels[0].shape, (height, width), strides[name], centres.get(name))
        titles = f"{name}, stride {strides[name]}\nmean of {len(channels)} channels", f"channel {varied}"
        for row, (numbers, colours) in enumerate(((channels.mean(dim=0), "viridis"), (channels[varied], "magma"))):
            axes[row, column].set_title(titles[row], fontsize=10)
            _overlay(axes[row, column], photo, numbers.numpy(), extent, colours)
    return figure


def _extent(
    cells: Sequence[int], size: tuple[int, int], stride: int, centre: float | None
) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of a map in pixels of the photo, whose first pixel has its middle at 0."""
    if not stride:  # all that is known is that it is of the whole photo
        return -0.5, size[1] - 0.5, size[0] - 0.5, -0.5
    start = ((stride - 1) / 2 if centre is None else centre) - stride / 2
    return start, start + cells[1] * stride, start + cells[0] * stride, start


def _overlay(axis: Any, photo: Any, values: Any, extent: tuple[float, float, float, float], colours: str) -> None:
    """The map in colours over the photo in grey, cut to the photo."""
    image = _displayable(photo)
    grey = image if image.ndim == 2 else image[..., :3].mean(axis=2)
    axis.imshow(grey, cmap="gray", vmin=-160, vmax=330)  # pale, so that the colours are the map's
    # A few outliers would leave the rest of the map in one colour.
    low, high = np.nanpercentile(values, (1, 99))
    if low == high:  # nothing but outliers
        low, high = np.nanmin(values), np.nanmax(values)
    left, right, bottom, top = extent
    across, down = (right - left) / values.shape[1], (bottom - top) / values.shape[0]
    around = left - across, right + across, bottom + down, top - down
    reaching = np.pad(values, 1, mode="edge")
    axis.imshow(reaching, colours, vmin=low, vmax=high, alpha=VEIL, extent=around, interpolation="nearest")
    axis.set(xlim=(-0.5, grey.shape[1] - 0.5), ylim=(grey.shape[0] - 0.5, -0.5))


def _displayable(photo: Any) -> Any:
    photo = photo / 257 if photo.dtype == np.uint16 else photo
    if photo.ndim == 3 and photo.shape[2] <= 2:  # grey, grey and alpha
        photo = photo[..., 0]
    return np.clip(photo, 0, 255).astype(np.uint8)
