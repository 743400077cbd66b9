"""CSPResNet, which PP-YOLOE and a branch of RT-DETR run on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex_backbones.backbones.base import check_batch, first_channels
from detrex_backbones.backbones.conv_parts import ConvNormAct, activation
from detrex_backbones.backbones.recompute import check_stages, run_recomputed
from detrex_backbones.backbones.staged import StagedBackbone, check_frozen, freeze_parts
from detrex_backbones.errors import ArgumentError
from detrex_backbones.layers.norm import Norm

__all__ = ["CSPResNet"]

WIDTHS, BLOCKS = (64, 128, 256, 512, 1024), (3, 6, 6, 3)
# Factors of the number of blocks and of channels.
SIZES = {"s": (0.33, 0.5), "m": (0.67, 0.75), "l": (1.0, 1.0), "x": (1.33, 1.25)}

MakeConv = Callable[..., nn.Module]


class CSPResNet(StagedBackbone):
    """CSPRepResNet of PP-YOLOE (Xu et al. 2022), as RT-DETR has it. Arguments and parameter names are RT-DETR's.

    Parameters: `stem.conv1.conv.weight`, `stages.0.conv_down.bn.weight`, `stages.0.attn.fc.weight`, ...

    Args:
        name: "s", "m", "l" or "x".
        act: "silu", "relu" or "gelu".
        return_idx: the stages that give maps: 0 is "p0" of stride 4, 3 is "p3" of stride 32.
        use_large_stem: whether the stem has three convolutions, or two.
        use_alpha: whether the 1x1 branch of a block has a learnt factor.
        frozen_stages: how many stages, with the stem, get no gradient; -1 for none, 0 for the stem alone.
        norm: the norm after every convolution, see `get_norm`.
        checkpoint_stages: the stages that are computed again in the backward pass instead of kept: True for all, or
            numbers as names, ["0", "1"].

    Raises:
        ArgumentError: another name or activation, stages that aren't there.
    """

    def __init__(
        self,
        name: str = "s",
        act: str = "silu",
        return_idx: Sequence[int] = (1, 2, 3),
        use_large_stem: bool = True,
        use_alpha: bool = False,
        *,
        frozen_stages: int = -1,
        norm: Norm = "BN",
        checkpoint_stages: bool | Sequence[str] = False,
    ) -> None:
        super().__init__()
        if name not in SIZES:
            raise ArgumentError(f"name={name!r} is not known. Allowed: {', '.join(map(repr, SIZES))}.")
        deepen, widen = SIZES[name]
        stem, *widths = (max(round(width * widen), 1) for width in WIDTHS)
        self._set_stages(return_idx, widths)
        check_frozen(frozen_stages, len(widths))
        conv: MakeConv = partial(ConvNormAct, norm=norm, act=activation(act))
        narrow = [3, *[stem // 2] * (2 if use_large_stem else 1), stem]
        self.stem = nn.Sequential(
            OrderedDict(
                (f"conv{at + 1}", conv(narrow[at], narrow[at + 1], 3, 2 if at == 0 else 1))
                for at in range(len(narrow) - 1)
            )
        )
        made = []
        for count, given, wide in zip(BLOCKS, [stem, *widths], widths, strict=False):
            made.append(CSPStage(conv, given, wide, max(round(count * deepen), 1), use_alpha, activation(act)))
        self.stages = nn.Sequential(*made[: max(self.out_indices) + 1])
        self.checkpoint_stages = check_stages(checkpoint_stages, [str(index) for index in range(len(self.stages))])
        freeze_parts([self.stem, *self.stages][: frozen_stages + 1])

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W) -> {name: map (N, C', ceil(H / stride), ceil(W / stride))}."""
        check_batch(x, first_channels(self.stem, None))
        maps = {}
        x = self.stem(x)
        for index, stage in enumerate(self.stages):
            recomputed = str(index) in self.checkpoint_stages and torch.is_grad_enabled()
            maps[index] = x = run_recomputed(stage, x) if recomputed else stage(x)
        return self._in_order(maps)


class CSPStage(nn.Module):
    """Half of the resolution; half of the channels through blocks, half beside them; a factor for each channel.

    Args:
        conv: makes a convolution with norm and activation.
        in_channels: C of the input (N, C, H, W).
        out_channels: C of the result.
        num_blocks: how many blocks.
        use_alpha: as of `CSPResNet`.
        act: makes an activation.
    """

    def __init__(
        self,
        conv: MakeConv,
        in_channels: int,
        out_channels: int,
        num_blocks: int,
        use_alpha: bool,
        act: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        middle = (in_channels + out_channels) // 2
        half = middle // 2
        self.conv_down = conv(in_channels, middle, 3, 2)
        self.conv1, self.conv2 = conv(middle, half), conv(middle, half)
        self.blocks = nn.Sequential(*[RepBlock(conv, half, use_alpha, act) for _ in range(num_blocks)])
        self.attn = EffectiveSqueeze(middle)
        self.conv3 = conv(middle, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / 2), ceil(W / 2))."""
        x = self.conv_down(x)
        x = self.attn(torch.cat([self.conv1(x), self.blocks(self.conv2(x))], 1))
        return self.conv3(x)  # type: ignore[no-any-return]


class RepBlock(nn.Module):
    """A 3x3 convolution, then a 3x3 and a 1x1 one side by side (RepVGG, Ding et al. 2021), beside a shortcut."""

    def __init__(self, conv: MakeConv, channels: int, use_alpha: bool, act: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels, 3)
        self.conv2 = RepConv(conv, channels, use_alpha, act)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return x + self.conv2(self.conv1(x))  # type: ignore[no-any-return]


class RepConv(nn.Module):
    """act(3x3 convolution + alpha * 1x1 convolution), each with its norm."""

    alpha: nn.Parameter | None

    def __init__(self, conv: MakeConv, channels: int, use_alpha: bool, act: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(channels, channels, 3, act=None), conv(channels, channels, act=None)
        self.alpha = nn.Parameter(torch.ones(1)) if use_alpha else None
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        small = self.conv2(x)
        made: Tensor = self.act(self.conv1(x) + (small if self.alpha is None else self.alpha * small))
        return made


class EffectiveSqueeze(nn.Module):
    """Each channel times a factor made of all channels' means (CenterMask, Lee and Park 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return x * F.hardsigmoid(self.fc(x.mean((2, 3), keepdim=True)))
