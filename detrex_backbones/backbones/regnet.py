"""RegNet under detectron2's names."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from detrex_backbones.backbones.base import Backbone, check_batch, check_names, first_channels
from detrex_backbones.backbones.memory_format import fast_layout
from detrex_backbones.backbones.recompute import check_stages, run_recomputed
from detrex_backbones.backbones.resnet.blocks import CNNBlockBase
from detrex_backbones.errors import ArgumentError
from detrex_backbones.kinds import kinds_checked
from detrex_backbones.layers import get_norm
from detrex_backbones.layers.norm import Norm

__all__ = ["RegNet", "ResBottleneckBlock", "SimpleStem"]

Activation = Callable[[], nn.Module]

MULTIPLE = 8  # what every stage's width is one of


@kinds_checked
class SimpleStem(CNNBlockBase):
    """A 3x3 convolution of stride 2, a norm and an activation. Arguments and parameter names are detectron2's.

    Args:
        w_in: channels of the image.
        w_out: channels of the result.
        norm: see `get_norm`.
        activation_class: makes the activation.
    """

    def __init__(self, w_in: int, w_out: int, norm: Norm, activation_class: Activation) -> None:
        super().__init__(w_in, w_out, 2)
        self.conv = _conv(w_in, w_out, 3, stride=2)
        self.bn = get_norm(norm, w_out)
        self.af = activation_class()

    def forward(self, x: Tensor) -> Tensor:
        """(N, w_in, H, W) -> (N, w_out, H / 2, W / 2)."""
        return self.af(_normalised(self.conv(x), self.bn))  # type: ignore[no-any-return]


class SqueezeExcite(nn.Module):
    """Channels weighted by what the whole map holds (Hu et al. 2018), within a block."""

    def __init__(self, width: int, squeezed: int, activation_class: Activation) -> None:
        super().__init__()
        first, second = _conv(width, squeezed, 1, bias=True), _conv(squeezed, width, 1, bias=True)
        self.f_ex = nn.Sequential(first, activation_class(), second, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.f_ex(x.mean((2, 3), keepdim=True))  # type: ignore[no-any-return]


class BottleneckTransform(nn.Module):
    """1x1, grouped 3x3 and 1x1 convolutions, each with its norm: what a block adds to its shortcut."""

    def __init__(
        self,
        w_in: int,
        w_out: int,
        stride: int,
        norm: Norm,
        activation_class: Activation,
        params: dict[str, float],
    ) -> None:
        super().__init__()
        width = round(w_out * params["bot_mul"])
        squeezed = round(w_in * params["se_r"])
        self.a, self.a_bn = _conv(w_in, width, 1), get_norm(norm, width)
        self.a_af = activation_class()
        self.b, self.b_bn = _conv(width, width, 3, stride, int(width // params["group_w"])), get_norm(norm, width)
        self.b_af = activation_class()
        self.se = SqueezeExcite(width, squeezed, activation_class) if squeezed else None
        self.c, self.c_bn = _conv(width, w_out, 1), get_norm(norm, w_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a_af(_normalised(self.a(x), self.a_bn))
        x = self.b_af(_normalised(self.b(x), self.b_bn))
        return _normalised(self.c(x if self.se is None else self.se(x)), self.c_bn)


@kinds_checked
class ResBottleneckBlock(CNNBlockBase):
    """`activation(shortcut(x) + f(x))`. Arguments and parameter names are detectron2's.

    Args:
        w_in: channels of the input.
        w_out: channels of the result.
        stride: of the 3x3 convolution and of the shortcut.
        norm: see `get_norm`.
        activation_class: makes each activation.
        params: "bot_mul": channels of the 3x3 convolution over `w_out`; "group_w": channels of each of its groups;
            "se_r": channels that the squeeze-excitation squeezes to over `w_in`, 0 for none.
    """

    def __init__(
        self,
        w_in: int,
        w_out: int,
        stride: int,
        norm: Norm,
        activation_class: Activation,
        params: dict[str, float],
    ) -> None:
        super().__init__(w_in, w_out, stride)
        self.proj: nn.Module | None = None
        self.bn: nn.Module | None = None
        if w_in != w_out or stride != 1:
            self.proj, self.bn = _conv(w_in, w_out, 1, stride), get_norm(norm, w_out)
        self.f = BottleneckTransform(w_in, w_out, stride, norm, activation_class, params)
        self.af = activation_class()

    def forward(self, x: Tensor) -> Tensor:
        """(N, w_in, H, W) -> (N, w_out, H / stride, W / stride)."""
        shortcut = x if self.proj is None else _normalised(self.proj(x), self.bn)
        return self.af(shortcut + self.f(x))  # type: ignore[no-any-return]


class RegNet(Backbone):
    """RegNet (Radosavovic et al. 2020). Arguments, parameter names and maps are detectron2's.

    Widths and depths of the stages follow from `depth`, `w_a`, `w_0` and `w_m` (section 3.3 of the paper). timm's
    networks of this name, which `configs/regnet/` builds, are the same under other parameter names.

    Parameters: `stem.conv.weight`, `stem.bn.weight`, `s1.b1.proj.weight`, `s1.b1.f.a_bn.weight` and so on.

    Args:
        stem_class: makes the stem of (3, `stem_width`, norm, activation_class): `SimpleStem`.
        stem_width: channels of the stem.
        block_class: makes a block of (channels in, channels out, stride, norm, activation_class, params):
            `ResBottleneckBlock`, which says what `params` holds.
        depth: number of blocks of all stages.
        w_a: how much each block is wider than the one before it, before widths are rounded.
        w_0: width of the first block.
        w_m: the factor between the widths that they are rounded to.
        group_width: channels of each group of the 3x3 convolutions.
        stride: of each stage.
        bottleneck_ratio: channels of the 3x3 convolutions over those around them.
        se_ratio: of squeeze-excitation, see `ResBottleneckBlock`; 0 for none.
        activation_class: makes each activation; None for ReLU in place.
        freeze_at: how much of the beginning to freeze, see `freeze`.
        norm: the norm after every convolution, see `get_norm`.
        out_features: the maps to return: "stem", "s1" to "s4". None: the last one.
        checkpoint_stages: the stages that are computed again in the backward pass instead of kept: True for all, or
            names: ["s1", "s2"].

    Raises:
        ArgumentError: numbers that no network can be made of, an unknown map.
    """

    def __init__(
        self,
        *,
        stem_class: Callable[..., nn.Module],
        stem_width: int,
        block_class: Callable[..., nn.Module],
        depth: int,
        w_a: float,
        w_0: int,
        w_m: float,
        group_width: int,
        stride: int = 2,
        bottleneck_ratio: float = 1.0,
        se_ratio: float = 0.0,
        activation_class: Activation | None = None,
        freeze_at: int = 0,
        norm: Norm = "BN",
        out_features: Sequence[str] | None = None,
        checkpoint_stages: bool | Sequence[str] = False,
    ) -> None:
        super().__init__()
        activation = partial(nn.ReLU, inplace=True) if activation_class is None else activation_class
        widths, depths = stage_sizes(depth, w_a, w_0, w_m)
        self.stage_names = tuple(f"s{index}" for index in range(1, len(widths) + 1))
        self.stem = stem_class(3, stem_width, norm, activation)
        maps = {"stem": (stem_width, int(self.stem.stride))}  # type: ignore[arg-type]
        before = stem_width
        for name, width, blocks in zip(self.stage_names, widths, depths, strict=True):
            width, group = fit_groups(width, bottleneck_ratio, group_width)
            params = {"bot_mul": bottleneck_ratio, "group_w": group, "se_r": se_ratio}
            stage = nn.Sequential()
            for index in range(blocks):
                shape = (before, width, 1 if index else stride)
                stage.add_module(f"b{index + 1}", block_class(*shape, norm, activation, params))
                before = width
            self.add_module(name, stage)
            maps[name] = (width, stride * list(maps.values())[-1][1])
        self.apply(_init_weights)
        wanted = check_names("out_features", [self.stage_names[-1]] if out_features is None else out_features, maps)
        self._set_maps({name: maps[name] for name in wanted})
        self.checkpoint_stages = check_stages(checkpoint_stages, self.stage_names)
        self.freeze(freeze_at)
        # What is behind the last map has its names in detectron2's files, too, and learns nothing.
        for name in list(maps)[max(map(list(maps).index, wanted)) + 1 :]:
            self.get_submodule(name).requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W) -> {name: map (N, C, ceil(H / stride), ceil(W / stride))}."""
        check_batch(x, first_channels(self.stem, getattr(self.stem, "in_channels", None)))
        x = fast_layout(x)
        outputs = {}
        for name in ("stem", *self.stage_names):
            recomputed = name in self.checkpoint_stages and torch.is_grad_enabled()
            stage = self.get_submodule(name)
            x = run_recomputed(stage, x) if recomputed else stage(x)
            if name in self._out_features:
                outputs[name] = x
        return {name: outputs[name] for name in self._out_features}

    def freeze(self, freeze_at: int = 0) -> RegNet:
        """Freeze the beginning: no gradients there, and its batch norms become `FrozenBatchNorm2d`.

        Args:
            freeze_at: 0 or -1 nothing, 1 the stem, 2 the stem and s1, and so on up to all stages.

        Raises:
            ArgumentError: for anything else.
        """
        if freeze_at not in range(-1, len(self.stage_names) + 2):
            raise ArgumentError(
                f"freeze_at={freeze_at!r} is out of range. Allowed: 0 or -1 (nothing), 1 (the stem), 2 (and s1) to "
                f"{len(self.stage_names) + 1} (all stages)."
            )
        frozen = ("stem", *self.stage_names)[: max(freeze_at, 0)]
        for block in [block for name in frozen for block in _blocks(self.get_submodule(name))]:
            # A block of the user's may know better what freezing it means.
            freeze = getattr(block, "freeze", None)
            freeze() if callable(freeze) else CNNBlockBase.freeze(block)  # type: ignore[arg-type]
        return self


def _blocks(part: nn.Module) -> list[nn.Module]:
    return list(part) if isinstance(part, nn.Sequential) else [part]


def stage_sizes(depth: int, w_a: float, w_0: int, w_m: float) -> tuple[list[int], list[int]]:
    """Width and number of blocks of every stage (Radosavovic et al. 2020, equations 2 to 4).

    The block of index j has the width `w_0 + w_a * j`, rounded to the closest `w_0 * w_m ** k`, and that to a multiple
    of 8; blocks of one width are a stage.

    Raises:
        ArgumentError: numbers that give no widths.
    """
    if depth < 1 or w_a < 0 or w_0 <= 0 or w_m <= 1 or w_0 % MULTIPLE:
        raise ArgumentError(
            f"depth={depth!r}, w_a={w_a!r}, w_0={w_0!r}, w_m={w_m!r} give no widths: depth is at least 1, w_a at least "
            f"0, w_0 a positive multiple of {MULTIPLE}, w_m more than 1."
        )
    index = torch.arange(depth, dtype=torch.float64, device="cpu")
    powers = ((index * w_a / w_0 + 1).log() / math.log(w_m)).round()
    rounded = (w_0 * w_m**powers / MULTIPLE).round().long() * MULTIPLE
    widths, counts = torch.unique(rounded, return_counts=True)
    return widths.tolist(), counts.tolist()


def fit_groups(width: int, bottleneck_ratio: float, group_width: int) -> tuple[int, int]:
    """The width next to `width` whose bottleneck is a multiple of its groups' width, and that width."""
    bottleneck = int(max(1, width * bottleneck_ratio))
    group = min(group_width, bottleneck)
    multiple = math.lcm(group, int(bottleneck_ratio)) if bottleneck_ratio > 1 else group
    bottleneck = max(multiple, round(bottleneck / multiple) * multiple)
    fitted = int(bottleneck / bottleneck_ratio)
    if fitted * bottleneck_ratio % group:
        raise ArgumentError(
            f"group_width={group_width!r} and bottleneck_ratio={bottleneck_ratio!r} fit no width near {width}: "
            f"choose a group_width that divides it."
        )
    return fitted, group


def _conv(w_in: int, w_out: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(w_in, w_out, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=bias)


def _normalised(x: Tensor, norm: nn.Module | None) -> Tensor:
    return x if norm is None else norm(x)


def _init_weights(module: nn.Module) -> None:
    """He et al. 2015, by the fan out of all groups together, as pycls does it."""
    if isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
