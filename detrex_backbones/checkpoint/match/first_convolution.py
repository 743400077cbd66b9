"""A first convolution for another number of channels, or another channel order, than the file's."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from detrex_backbones.checkpoint.entry import Shapes
from detrex_backbones.checkpoint.match.suffixes import Plan
from detrex_backbones.checkpoint.names.readings import Reading
from detrex_backbones.errors import ArgumentError, closest

__all__ = ["MODES", "adapt_channels", "fit_stem", "swap_channels", "takes_image"]

MODES = ("error", "repeat", "mean", "zero")


def adapt_channels(weight: Tensor, channels: int, mode: str) -> Tensor:
    """The weight of a first convolution for images with another number of channels.

    Args:
        weight: (out, in, height, width).
        channels: that the images have.
        mode: "repeat": as timm does it: the filters of the channels in turn, scaled so that the response to a uniform
            image stays; for one channel their sum. "mean": every channel gets the mean filter, scaled likewise. "zero":
            the channels that the file has keep their filters, further ones get zeros.

    Raises:
        ArgumentError: an unknown mode, or "zero" for fewer channels than the file's, whose filters would be lost.
    """
    _check_mode(mode)
    stored = weight.shape[1]
    _check_channels(stored, channels, mode)
    wide = weight.float()
    if mode == "repeat" and channels == 1:
        adapted = wide.sum(dim=1, keepdim=True)
    elif mode == "repeat":
        repeats = -(-channels // stored)
        adapted = wide.repeat(1, repeats, 1, 1)[:, :channels] * (stored / channels)
    elif mode == "mean":
        adapted = wide.mean(dim=1, keepdim=True).repeat(1, channels, 1, 1) * (stored / channels)
    else:
        adapted = torch.cat([wide, wide.new_zeros(wide.shape[0], channels - stored, *wide.shape[2:])], dim=1)
    return adapted.to(weight.dtype)


def swap_channels(weight: Tensor) -> Tensor:
    """The weight of a first convolution for BGR images where it was for RGB, or the other way round."""
    return weight.flip(1)


def fit_stem(plan: Plan, reading: Reading, model: Shapes, mode: str, swap: bool) -> None:
    """Make the first convolution of a reading fit, where only the number of channels keeps it from it.

    Args:
        plan: of the reading; what fits now moves from mismatched to matched.
        reading: its first convolution is replaced, and `adapted` says how.
        model: name -> shape.
        mode: one of `MODES`.
        swap: turn RGB into BGR or the other way round, too.

    Raises:
        ArgumentError: an unknown mode; one that can't make so many channels; a swap without a first convolution.
    """
    _check_mode(mode)
    if swap:
        stem = next((ours for ours in _both(plan) if takes_image(reading.named[ours].shape)), None)
        if stem is None:
            raise ArgumentError("swap_channels=True: the checkpoint has no first convolution with 3 channels.")
        entry = reading.named[stem]
        entry.tensor, entry.adapted = entry.values.then(swap_channels), "first convolution: RGB and BGR swapped"
    if mode == "error":
        return
    for key, ours in list(plan.mismatched.items()):
        entry = reading.named[ours]
        stored, wanted = entry.shape, tuple(model[key])
        if len(stored) == len(wanted) == 4 and stored[1] <= 4 and (stored[0], *stored[2:]) == (wanted[0], *wanted[2:]):
            _check_channels(stored[1], wanted[1], mode)
            change = partial(adapt_channels, channels=wanted[1], mode=mode)
            entry.tensor, entry.shape = entry.values.then(change, wanted), wanted
            what = f"first convolution: {stored[1]} -> {wanted[1]} channels ({mode})"
            entry.adapted = "; ".join(filter(None, (entry.adapted, what)))
            plan.matched[key] = plan.mismatched.pop(key)


def takes_image(shape: tuple[int, ...]) -> bool:
    """Whether a tensor of this shape is a convolution of RGB images, in networks of any kind their first."""
    return len(shape) == 4 and shape[1] == 3 and shape[2] > 1


def _both(plan: Plan) -> list[str]:
    return [*plan.matched.values(), *plan.mismatched.values()]


def _check_channels(stored: int, channels: int, mode: str) -> None:
    """Refuse a mode that can't make so many channels."""
    if mode == "error" or (mode == "zero" and channels <= stored):
        raise ArgumentError(
            f"stem_adapt={mode!r} can't make {channels} channels of the {stored} that the file has. "
            f"Allowed here: 'repeat', 'mean'."
        )


def _check_mode(mode: str) -> None:
    """Refuse a mode that there isn't."""
    if mode not in MODES:
        raise ArgumentError(f"stem_adapt={mode!r} is not known. Allowed: {', '.join(MODES)}.{closest(mode, MODES)}")
