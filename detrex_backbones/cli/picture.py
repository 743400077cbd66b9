"""A picture of feature maps beside the photo that they were made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["draw_features"]


def draw_features(photo: Any, maps: Mapping[str, Tensor], strides: Mapping[str, int], path: Path) -> None:
    """Write a PNG: the photo, then for each map its mean over the channels and its most varied channel.

    Args:
        photo: (H, W) or (H, W, C) array.
        maps: name -> (C, H, W).
        strides: name -> input pixels that a pixel of the map stands for.
        path: of the picture.
    """
    from matplotlib.figure import Figure

    height, width = photo.shape[:2]
    panel = 2.2
    figure = Figure(figsize=(panel * (len(maps) + 1), 2 * panel * height / width + 0.9), layout="constrained")
    axes = figure.subplots(2, len(maps) + 1, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    axes[0, 0].imshow(_displayable(photo), cmap="gray")
    axes[0, 0].set_title(f"photo\n{height} x {width}", fontsize=9)
    axes[1, 0].text(
        0, 1, "above: mean over\nall channels\n\nbelow: the channel\nthat varies most", va="top", fontsize=9
    )
    for column, (name, value) in enumerate(maps.items(), start=1):
        channels = value.detach().float().cpu()
        varied = int(channels.flatten(1).std(dim=1).argmax())
        axes[0, column].imshow(_clip(channels.mean(dim=0).numpy()), cmap="viridis")
        axes[0, column].set_title(f"{name}: mean of {len(channels)}\nstride {strides[name]}", fontsize=9)
        axes[1, column].imshow(_clip(channels[varied].numpy()), cmap="magma")
        axes[1, column].set_title(f"channel {varied}", fontsize=9)
    figure.savefig(path, dpi=110)


def _displayable(photo: Any) -> Any:
    photo = photo / 257 if photo.dtype == np.uint16 else photo
    if photo.ndim == 3 and photo.shape[2] == 2:  # grey and alpha
        photo = photo[..., 0]
    return np.clip(photo, 0, 255).astype(np.uint8)


def _clip(values: Any) -> Any:
    # A few outliers would leave the rest of the map in one colour.
    low, high = np.nanpercentile(values, (1, 99))
    return np.clip(values, low, high)
