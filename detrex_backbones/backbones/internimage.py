"""InternImage: a network of deformable convolutions whose weights are computed from the map."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detrex_backbones.backbones.base import check_batch, first_channels
from detrex_backbones.backbones.dcn_v3 import DCNv3, Permuted, last_axis_norm
from detrex_backbones.backbones.memory_format import fast_layout
from detrex_backbones.backbones.recompute import run_recomputed
from detrex_backbones.backbones.staged import StagedBackbone, add_scaled, drop_paths, freeze_behind, layer_scale
from detrex_backbones.backbones.transformer_parts import DropPath, init_transformer, mlp
from detrex_backbones.errors import SAME, ArgumentError, closest

__all__ = ["InternImage"]

logger = logging.getLogger(__name__)

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"ReLU": nn.ReLU, "SiLU": nn.SiLU, "GELU": nn.GELU}
CORES = ("DCNv3", "DCNv3_pytorch")  # theirs are a compiled operator and its copy in PyTorch; here they are one
DROP_PATHS = ("linear", "uniform")


class InternImage(StagedBackbone):
    """InternImage (Wang et al. 2023). Arguments, parameter names and maps are detrex's; nothing is to be compiled.

    Parameters: `patch_embed.conv1.weight`, `levels.0.blocks.0.dcn.offset.weight`, `levels.0.downsample.conv.weight` and
    so on.

    Args:
        core_op: "DCNv3" or "DCNv3_pytorch", which are the same here.
        channels: of the first stage; each has twice as many as the one before it.
        depths: number of blocks of each stage.
        groups: number of groups of channels of each stage, each with its own places and weights.
        mlp_ratio: channels within the blocks' MLPs over those around them.
        drop_rate: dropout after the stem and in the MLPs.
        drop_path_rate: the last block's probability of being left out in training.
        drop_path_type: "linear": it grows evenly from 0 at the first block; "uniform": all have that of the last.
        act_layer: "ReLU", "SiLU" or "GELU".
        norm_layer: "LN" or "BN": the norm of the stem, of halved maps and within the operator.
        layer_scale: what the learnt factors of each block's results start from; None for no factors.
        offset_scale: factor of the places that the operator looks at, those without an offset included.
        post_norm: whether blocks normalise their results instead of what they are given.
        with_cp: whether the blocks' activations are computed again in the backward pass instead of kept.
        dw_kernel_size: width of the depthwise convolution that offsets and weights come from; None: 3.
        level2_post_norm: whether some blocks of the third stage are followed by another norm.
        level2_post_norm_block_ids: which blocks.
        res_post_norm: whether blocks without factors and without `post_norm` normalise their results, too.
        center_feature_scale: whether a learnt part of each entry's own value stands in for the operator's.
        out_indices: the stages that give maps: 0 is "p0" of stride 4, 3 is "p3" of stride 32.
        init_cfg: taken for the sake of configs; nothing depends on it.
        **kwargs: likewise, with a warning.

    Raises:
        ArgumentError: a stage or an option that isn't there, groups that don't divide the channels.
    """

    def __init__(
        self,
        core_op: str = "DCNv3",
        channels: int = 64,
        depths: Sequence[int] = (3, 4, 18, 5),
        groups: Sequence[int] = (3, 6, 12, 24),
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
        drop_path_type: str = "linear",
        act_layer: str = "GELU",
        norm_layer: str = "LN",
        layer_scale: float | None = None,
        offset_scale: float = 1.0,
        post_norm: bool = False,
        with_cp: bool = False,
        dw_kernel_size: int | None = None,
        level2_post_norm: bool = False,
        level2_post_norm_block_ids: Sequence[int] | None = None,
        res_post_norm: bool = False,
        center_feature_scale: bool = False,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        init_cfg: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        _check_choice("core_op", core_op, CORES)
        _check_choice("drop_path_type", drop_path_type, DROP_PATHS)
        _check_choice("act_layer", act_layer, ACTIVATIONS)
        _check_choice("norm_layer", norm_layer, ("LN", "BN"))
        if len(depths) != len(groups):
            raise ArgumentError(
                f"depths={list(depths)!r} and groups={list(groups)!r}: one number each for every stage."
            )
        for name in kwargs:
            if name in SAME[0]:
                raise ArgumentError(f"InternImage takes no {name!r}. Did you mean 'with_cp'?")
        if kwargs:
            logger.warning("InternImage takes no %s: ignored, as in detrex", ", ".join(kwargs))
        widths = [channels * 2**index for index in range(len(depths))]
        self._set_stages(out_indices, widths)
        self.with_cp = with_cp
        activation = ACTIVATIONS[act_layer]
        self.patch_embed = Stem(channels, norm_layer, activation)
        self.pos_drop = nn.Dropout(drop_rate)
        block: dict[str, Any] = {"mlp_ratio": mlp_ratio, "drop": drop_rate, "post_norm": post_norm}
        block |= {"res_post_norm": res_post_norm, "layer_scale_from": layer_scale}
        operator = {"offset_scale": offset_scale, "dw_kernel_size": dw_kernel_size, "norm_layer": norm_layer}
        operator |= {"center_feature_scale": center_feature_scale}
        self.levels = nn.ModuleList()
        for index, paths in enumerate(drop_paths(drop_path_rate, depths)):
            operator["group"] = groups[index]
            paths = [DropPath(drop_path_rate) for _ in paths] if drop_path_type == "uniform" else paths
            level = Level(
                [Block(widths[index], activation, path, operator, **block) for path in paths],
                has_norm=not post_norm or center_feature_scale,
                normed_blocks=level2_post_norm_block_ids if level2_post_norm and index == 2 else None,
            )
            if index + 1 < len(depths):
                level.downsample = Halve(widths[index], norm_layer)
            self.levels.append(level)
        freeze_behind(max(self.out_indices), self.levels)
        self.apply(init_transformer)
        for module in self.modules():
            if isinstance(module, DCNv3):
                module.reset_parameters()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W) -> {name: map (N, C, ceil(H / stride), ceil(W / stride))}."""
        check_batch(x, first_channels(self.patch_embed, None))
        maps: dict[int, Tensor] = {}
        x = self.pos_drop(self.patch_embed(fast_layout(x, always=True)))
        for index, level in enumerate(self.levels):
            x = level(x, self.with_cp and torch.is_grad_enabled())
            if index in self.out_indices:
                maps[index] = x.permute(0, 3, 1, 2).contiguous()
            if level.downsample is not None:
                x = level.downsample(x)  # type: ignore[operator]
        return self._in_order(maps)


class Stem(nn.Module):
    """Two 3x3 convolutions of stride 2, each with a norm.

    Args:
        channels: of the result; the first convolution has half of them.
        norm_layer: "LN" or "BN".
        activation: makes what stands between the two.
    """

    def __init__(self, channels: int, norm_layer: str, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels // 2, 3, stride=2, padding=1)
        self.norm1 = last_axis_norm(norm_layer, channels // 2, channels_first=True)
        self.norm1.append(Permuted(0, 3, 1, 2))
        self.act = activation()
        self.conv2 = nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1)
        self.norm2 = last_axis_norm(norm_layer, channels, channels_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, H / 4, W / 4, channels)."""
        return self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))  # type: ignore[no-any-return]


class Halve(nn.Module):
    """A 3x3 convolution of stride 2 to twice the channels, and a norm."""

    def __init__(self, channels: int, norm_layer: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False)
        self.norm = last_axis_norm(norm_layer, 2 * channels, channels_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, channels) -> (N, H / 2, W / 2, 2 * channels)."""
        return self.norm(self.conv(x.permute(0, 3, 1, 2)))  # type: ignore[no-any-return]


class Level(nn.Module):
    """A stage: blocks, and norms behind all of them or behind some."""

    downsample: nn.Module | None

    def __init__(self, blocks: Sequence[nn.Module], *, has_norm: bool, normed_blocks: Sequence[int] | None) -> None:
        super().__init__()
        width: int = blocks[0].channels  # type: ignore[assignment]
        self.blocks = nn.ModuleList(blocks)
        self.norm = last_axis_norm("LN", width) if has_norm else None
        self.normed_blocks = list(normed_blocks or ())
        if normed_blocks is not None:
            self.post_norms = nn.ModuleList(last_axis_norm("LN", width) for _ in normed_blocks)
        self.downsample = None

    def forward(self, x: Tensor, is_recomputed: bool) -> Tensor:
        """(N, H, W, C) -> the same shape."""
        for index, block in enumerate(self.blocks):
            x = run_recomputed(block, x) if is_recomputed else block(x)
            if index in self.normed_blocks:
                x = self.post_norms[self.normed_blocks.index(index)](x)
        return x if self.norm is None else self.norm(x)


class Block(nn.Module):
    """The deformable operator, then an MLP, each beside a shortcut.

    Args:
        channels: of the input and of the result.
        activation: makes the activations.
        drop_path: what leaves either out in training.
        operator: further arguments of `DCNv3`.
        mlp_ratio, drop, post_norm, res_post_norm: as of `InternImage`.
        layer_scale_from: its `layer_scale`.
    """

    def __init__(
        self,
        channels: int,
        activation: Callable[[], nn.Module],
        drop_path: DropPath,
        operator: dict[str, Any],
        *,
        mlp_ratio: float,
        drop: float,
        post_norm: bool,
        res_post_norm: bool,
        layer_scale_from: float | None,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.post_norm = post_norm
        self.gamma1 = layer_scale(channels, layer_scale_from)
        self.gamma2 = layer_scale(channels, layer_scale_from)
        self.norm1 = last_axis_norm("LN", channels)
        self.dcn = DCNv3(channels, activation=activation, **operator)
        self.drop_path = drop_path
        self.norm2 = last_axis_norm("LN", channels)
        self.mlp = mlp(channels, int(channels * mlp_ratio), activation, drop)
        self.res_post_norm = res_post_norm
        if res_post_norm:
            self.res_post_norm1 = last_axis_norm("LN", channels)
            self.res_post_norm2 = last_axis_norm("LN", channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, channels) -> the same shape."""
        x = add_scaled(x, self._branch(self.dcn, 1, x), self.gamma1, self.drop_path)
        return add_scaled(x, self._branch(self.mlp, 2, x), self.gamma2, self.drop_path)

    def _branch(self, part: nn.Module, number: int, x: Tensor) -> Tensor:
        norm = self.get_submodule(f"norm{number}")
        if self.post_norm:
            return norm(part(x))  # type: ignore[no-any-return]
        residual: Tensor = part(norm(x))
        # As with the authors, blocks with factors leave these norms out, though they have them.
        if self.res_post_norm and self.gamma1 is None:
            residual = self.get_submodule(f"res_post_norm{number}")(residual)
        return residual


def _check_choice(argument: str, value: str, allowed: Sequence[str] | dict[str, Any]) -> None:
    if value not in allowed:
        raise ArgumentError(
            f"{argument}={value!r} is not known. Allowed: {', '.join(map(repr, allowed))}.{closest(value, allowed)}"
        )
