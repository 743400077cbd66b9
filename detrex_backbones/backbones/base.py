"""What every backbone promises to whatever follows it."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detrex_backbones.errors import ArgumentError, InputError, closest
from detrex_backbones.kinds import kinds_checked
from detrex_backbones.layers import ShapeSpec, fuse_norms
from detrex_backbones.layers.fuse import loose_norms

__all__ = ["Backbone", "check_batch", "check_names", "first_channels", "first_convolution"]

logger = logging.getLogger(__name__)

SMALL = 128  # height and width of an image in pixels: a few entries in a map of the usual strides


class Backbone(nn.Module, ABC):
    """A network that turns images into named feature maps. The contract is detectron2's.

    A subclass sets `_out_features`, `_out_feature_channels` and `_out_feature_strides` (by `_set_maps`, or itself), or
    overrides `output_shape`.
    """

    _out_features: list[str]
    _out_feature_channels: dict[str, int]
    _out_feature_strides: dict[str, int]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls) and cls.__module__.partition(".")[0] == __package__.partition(".")[0]:
            kinds_checked(cls)

    @abstractmethod
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, C, H, W) -> {name: map (N, C', H / stride, W / stride)}, in the order of `output_shape()`."""

    def _set_maps(self, maps: Mapping[str, tuple[int, int]]) -> None:
        """Name of each map, in the order of `forward` -> its channels and its stride."""
        self._out_features = list(maps)
        self._out_feature_channels = {name: channels for name, (channels, _) in maps.items()}
        self._out_feature_strides = {name: stride for name, (_, stride) in maps.items()}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of every map that `forward` returns, known before the first forward.

        Raises:
            ArgumentError: the class neither sets its maps nor overrides this.
        """
        if not hasattr(self, "_out_features"):
            raise ArgumentError(
                f"{type(self).__name__} doesn't say which maps it gives. Write "
                f"self._set_maps({{'res4': (channels, stride)}}) in its __init__, or override output_shape."
            )
        return {
            name: ShapeSpec(channels=self._out_feature_channels[name], stride=self._out_feature_strides[name])
            for name in self._out_features
        }

    def whole_network(self) -> Mapping[str, tuple[int, ...]]:
        """Name -> shape of every parameter and buffer of the network that this is the beginning of, as its files have
        them; {} where nothing is left out. What is behind the last map has no place here, and is no sign of another
        network.
        """
        return {}

    def fuse(self) -> Backbone:
        """Fold the batch norms into the convolutions, in place, for inference; see `fuse_norms`.

        Where norms are no part of their convolutions, as in timm's networks, it runs a small image of noise to see
        which belong together.
        """
        try:
            fuse_norms(self, self._example() if loose_norms(self) else None)
        except ArgumentError:
            raise
        except Exception as error:  # a network of the user's may want anything; nothing is changed yet
            logger.warning("it can't run an image of noise, which shows where norms belong: %s", error)
            fuse_norms(self)
        return self

    def _example(self) -> Tensor:
        """An image of noise that the network runs."""
        like = next(self.parameters())
        size = (self._image_channels(), *self._example_size())
        return torch.randn(1, *size, device=like.device, dtype=like.dtype)

    def _image_channels(self) -> int:
        return first_convolution(self).in_channels

    def _example_size(self) -> tuple[int, int]:
        """Height and width of a small image that it runs, in pixels."""
        square = self.padding_constraints.get("square_size", 0)
        step = max(self.size_divisibility, 1)
        side = square or math.ceil(SMALL / step) * step
        return side, side

    @property
    def size_divisibility(self) -> int:
        """What H and W of the input must be multiples of, in pixels; 0 where any size will do."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Constraints on padding beyond divisibility: `size_divisibility` and `square_size`, in pixels; {} for none.

        `size_divisiblity`, as detectron2's pyramid over a ViT spells it, is a wish: maps then have exact sides.
        """
        return {}


def check_batch(x: Tensor, channels: int | None = None) -> None:
    """Refuse, by an InputError, what is no batch (N, C, H, W) of images, or one of another number of channels."""
    if x.dim() != 4:
        raise InputError(
            f"a backbone takes a batch of shape (N, C, H, W), not {tuple(x.shape)}. One image: image[None]."
        )
    if channels not in (None, x.shape[1]):
        raise InputError(f"the network has in_channels={channels}, but the batch {tuple(x.shape)} has {x.shape[1]}.")


def check_names(argument: str, names: Sequence[str], allowed: Iterable[str], hint: str = "") -> list[str]:
    """The names as a list.

    Args:
        argument: what they were given as.
        names: to be checked.
        allowed: what they may be.
        hint: what to add to the message about an unknown name; "" suggests the closest ones.

    Raises:
        ArgumentError: a string, a name that isn't allowed, none at all, or one twice.
    """
    wanted, allowed = [names] if isinstance(names, str) else list(names), list(allowed)
    for name in wanted:
        if name not in allowed:
            raise ArgumentError(
                f"{argument}={names!r}: there is no {name!r}. Allowed: {', '.join(allowed)}."
                f"{hint or closest(name, allowed)}"
            )
    if isinstance(names, str):
        raise ArgumentError(f"{argument}={names!r} is a string: it takes a list of names, {argument}=[{names}].")
    if not wanted or len(set(wanted)) != len(wanted):
        raise ArgumentError(f"{argument}={names!r}: at least one name, none of them twice, of {', '.join(allowed)}.")
    return wanted


def first_channels(module: nn.Module, made_with: int | None) -> int | None:
    """How many channels the image has: what the first convolution takes, which may have been replaced by hand.

    Args:
        module: with the first convolution in it.
        made_with: how many it was made for, where there is no convolution; None for not known.
    """
    for part in module.modules():  # no next(..., made_with): torch.compile of torch 2.6 can't follow that
        if isinstance(part, nn.Conv2d):
            return part.in_channels
    return made_with


def first_convolution(module: nn.Module) -> nn.Conv2d:
    """The one that takes the image, where modules stand in the order in which they run."""
    return next(part for part in module.modules() if isinstance(part, nn.Conv2d))
