"""CSPDarknet, which YOLOX runs on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex_backbones.backbones.base import check_batch, first_convolution
from detrex_backbones.backbones.conv_parts import ConvNormAct
from detrex_backbones.backbones.recompute import check_stages, run_recomputed
from detrex_backbones.backbones.staged import StagedBackbone, check_frozen, freeze_parts
from detrex_backbones.errors import ArgumentError
from detrex_backbones.layers.norm import Norm

__all__ = ["CSPDarknet"]

# Channels of the stem and of each stage, and blocks of each stage, at factors of one.
ARCHITECTURES = {
    "P5": ((64, 128, 256, 512, 1024), (3, 9, 9, 3)),
    "P6": ((64, 128, 256, 512, 768, 1024), (3, 9, 9, 3, 3)),
}
EPS = 1e-3  # of every norm: YOLOX's authors set it after building the network

MakeConv = Callable[..., nn.Module]


class CSPDarknet(StagedBackbone):
    """CSPDarknet of YOLOX (Ge et al. 2021). Arguments and parameter names are OpenMMLab's; Megvii's files fit, too.

    YOLOX-nano to x: `deepen_factor` and `widen_factor` 0.33 and 0.25 (nano, `use_depthwise`), 0.33 and 0.375 (tiny),
    0.33 and 0.5 (s), 0.67 and 0.75 (m), 1 and 1 (l), 1.33 and 1.25 (x). Images are BGR from 0 to 255, not normalised.
    A last odd row or column gets a neighbour of zeros, where the others' code wants even sizes.

    Parameters: `stem.conv.conv.weight`, `stage1.0.bn.weight`, `stage1.1.main_conv.conv.weight`, ...

    Args:
        arch: "P5", of four stages, or "P6", of five.
        deepen_factor: of the number of blocks.
        widen_factor: of the number of channels.
        out_indices: the maps: 0 is the stem's, "p0" of stride 2, 4 is "p4" of stride 32.
        frozen_stages: the last one that gets no gradient, with all before it: 0 is the stem; -1 for none.
        use_depthwise: whether 3x3 convolutions are a depthwise one and a 1x1 convolution (YOLOX-nano).
        spp_kernal_sizes: sides of the poolings in the last stage, in pixels. The name is OpenMMLab's.
        in_channels: channels of the image.
        norm: the norm after every convolution, see `get_norm`.
        checkpoint_stages: the stages that are computed again in the backward pass instead of kept: True for all, or
            names, ["stage1"].

    Raises:
        ArgumentError: an unknown arch, stages that aren't there.
    """

    def __init__(
        self,
        arch: str = "P5",
        deepen_factor: float = 1.0,
        widen_factor: float = 1.0,
        out_indices: Sequence[int] = (2, 3, 4),
        frozen_stages: int = -1,
        use_depthwise: bool = False,
        spp_kernal_sizes: Sequence[int] = (5, 9, 13),
        *,
        in_channels: int = 3,
        norm: Norm = "BN",
        checkpoint_stages: bool | Sequence[str] = False,
    ) -> None:
        super().__init__()
        if arch not in ARCHITECTURES:
            raise ArgumentError(f"arch={arch!r} is not known. Allowed: {', '.join(map(repr, ARCHITECTURES))}.")
        channels, blocks = ARCHITECTURES[arch]
        widths = [int(width * widen_factor) for width in channels]
        self._set_stages(out_indices, widths, stride=2)
        check_frozen(frozen_stages, len(blocks))
        conv: MakeConv = partial(ConvNormAct, norm=norm, eps=EPS)
        conv3x3: MakeConv = partial(_separable, conv) if use_depthwise else conv
        self.stem = Focus(conv(4 * in_channels, widths[0], 3))
        last = max(self.out_indices)  # stages behind it would never learn
        self._stages = [f"stage{index}" for index in range(1, last + 1)]
        for index, (narrow, wide) in enumerate(list(pairwise(widths))[:last]):
            at_end = index == len(blocks) - 1
            count = max(round(blocks[index] * deepen_factor), 1)
            layers = [conv3x3(narrow, wide, 3, 2)]
            layers += [PyramidPooling(conv, wide, spp_kernal_sizes)] if at_end else []
            layers.append(CSPLayer(conv, conv3x3, wide, count, add_identity=not at_end))
            self.add_module(f"stage{index + 1}", nn.Sequential(*layers))
        self.checkpoint_stages = check_stages(checkpoint_stages, self._stages)
        freeze_parts([self.get_submodule(name) for name in ["stem", *self._stages][: frozen_stages + 1]])

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, C, H, W) -> {name: map (N, C', ceil(H / stride), ceil(W / stride))}."""
        check_batch(x, self._image_channels())
        maps = {0: self.stem(x)}
        for index, name in enumerate(self._stages, 1):
            stage, given = self.get_submodule(name), maps[index - 1]
            recomputed = name in self.checkpoint_stages and torch.is_grad_enabled()
            maps[index] = run_recomputed(stage, given) if recomputed else stage(given)
        return self._in_order(maps)

    def _image_channels(self) -> int:
        taken = first_convolution(self.stem).in_channels
        return taken // 4 if isinstance(self.stem, Focus) else taken


def _separable(conv: MakeConv, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Module:
    depthwise = conv(in_channels, in_channels, kernel_size, stride, groups=in_channels)
    return nn.Sequential(OrderedDict(depthwise_conv=depthwise, pointwise_conv=conv(in_channels, out_channels)))


class Focus(nn.Module):
    """Four pixels of a square as four times the channels, then a convolution.

    Args:
        conv: takes four times the channels of the image.
    """

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', ceil(H / 2), ceil(W / 2))."""
        if x.shape[2] % 2 or x.shape[3] % 2:
            x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        # Column by column, which pixel_unshuffle has row by row.
        parts = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.conv(torch.cat(parts, 1))  # type: ignore[no-any-return]


class PyramidPooling(nn.Module):
    """The largest values around each pixel, within several distances, beside its own (SPP, He et al. 2014).

    Args:
        conv: makes a convolution with its norm.
        channels: of the input and of the result.
        sides: of the poolings, in pixels.
    """

    def __init__(self, conv: MakeConv, channels: int, sides: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels // 2)
        self.poolings = nn.ModuleList(nn.MaxPool2d(side, 1, side // 2) for side in sides)
        self.conv2 = conv(channels // 2 * (1 + len(sides)), channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        x = self.conv1(x)
        return self.conv2(torch.cat([x, *(pool(x) for pool in self.poolings)], 1))  # type: ignore[no-any-return]


class CSPLayer(nn.Module):
    """Half of the channels through blocks, half beside them (CSPNet, Wang et al. 2020).

    Args:
        conv: makes a 1x1 convolution with its norm.
        conv3x3: makes a 3x3 one.
        channels: of the input and of the result.
        num_blocks: how many blocks.
        add_identity: whether these have shortcuts.
    """

    def __init__(self, conv: MakeConv, conv3x3: MakeConv, channels: int, num_blocks: int, add_identity: bool) -> None:
        super().__init__()
        half = channels // 2
        self.main_conv = conv(channels, half)
        self.short_conv = conv(channels, half)
        self.final_conv = conv(2 * half, channels)
        self.blocks = nn.Sequential(*[Bottleneck(conv, conv3x3, half, add_identity) for _ in range(num_blocks)])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        parts = [self.blocks(self.main_conv(x)), self.short_conv(x)]
        return self.final_conv(torch.cat(parts, 1))  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """A 1x1 and a 3x3 convolution, beside a shortcut or not; arguments are those of `CSPLayer`."""

    def __init__(self, conv: MakeConv, conv3x3: MakeConv, channels: int, add_identity: bool) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels)
        self.conv2 = conv3x3(channels, channels, 3)
        self.add_identity = add_identity

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        made: Tensor = self.conv2(self.conv1(x))
        return made + x if self.add_identity else made
