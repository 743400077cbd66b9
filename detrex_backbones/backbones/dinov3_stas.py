"""The backbone of DEIMv2: DINOv3's ViT, or a smaller one with its rotary positions, beside convolutions for details."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex_backbones.backbones.base import Backbone, check_batch
from detrex_backbones.backbones.dinov3_vit import RotaryViT
from detrex_backbones.backbones.plain_vit import check_heads
from detrex_backbones.backbones.recompute import check_stages
from detrex_backbones.backbones.staged import freeze_parts
from detrex_backbones.errors import ArgumentError, InputError, closest
from detrex_backbones.layers.norm import Norm, get_norm

__all__ = ["DINOv3STAs"]

# Channels, and heads.
WIDTHS = {"vit_tiny": (192, 3), "vit_tinyplus": (256, 4), "dinov3_vits16": (384, 6), "dinov3_vits16plus": (384, 6)}
DEPTH, STRIDES = 12, (8, 16, 32)


class DINOv3STAs(Backbone):
    """DINOv3's ViT with the spatial tuning adapter of DEIMv2 (Huang et al. 2025).

    Arguments, parameter names and maps are its authors': three blocks of the ViT give a map each, which is resized to
    stride 8, 16 or 32 and joined with one of a few convolutions; a 1x1 convolution with a norm follows. Weights of the
    ViT alone are loaded into the attribute `dinov3`.

    Parameters: `dinov3.blocks.0.attn.qkv.weight` (of the two tiny ones `dinov3._model.blocks.0...`),
    `sta.stem.0.weight`, `convs.0.weight`, `norms.0.weight`, ...

    Args:
        name: "dinov3_vits16" (DEIMv2-L), "dinov3_vits16plus" (X), "vit_tiny" (S) or "vit_tinyplus" (M).
        interaction_indexes: the blocks that give maps, in rising order: three of 0 to 11, or one for all maps.
        finetune: whether the ViT learns.
        embed_dim: channels of the tokens; None for what the name stands for: 384, 384, 192, 256.
        num_heads: attention heads of each block; None likewise: 6, 6, 3, 4.
        use_sta: whether there are the convolutions, which want H and W that are multiples of 32.
        conv_inplane: channels of the first of them.
        hidden_dim: channels of the maps; None for `embed_dim`.
        norm: the norm behind the convolutions, see `get_norm`. The authors' is "SyncBN".
        checkpoint_stages: the blocks of the ViT that are computed again in the backward pass instead of kept: True for
            all, or numbers as names, ["0", "11"].

    Raises:
        ArgumentError: another name, blocks that aren't there, heads that don't divide the channels.
    """

    def __init__(
        self,
        name: str = "vit_tiny",
        interaction_indexes: Sequence[int] = (3, 7, 11),
        finetune: bool = True,
        embed_dim: int | None = None,
        num_heads: int | None = None,
        use_sta: bool = True,
        conv_inplane: int = 16,
        hidden_dim: int | None = None,
        *,
        norm: Norm = "BN",
        checkpoint_stages: bool | Sequence[str] = False,
    ) -> None:
        super().__init__()
        if name not in WIDTHS:
            raise ArgumentError(f"name={name!r} is not known. Allowed: {', '.join(WIDTHS)}.{closest(name, WIDTHS)}")
        blocks = list(interaction_indexes)
        if len(blocks) not in (1, 3) or blocks != sorted({*blocks} & {*range(DEPTH)}):
            raise ArgumentError(
                f"interaction_indexes={interaction_indexes!r}: three numbers of blocks, or one, from 0 to {DEPTH - 1} "
                f"in rising order."
            )
        dim, heads = embed_dim or WIDTHS[name][0], num_heads or WIDTHS[name][1]
        check_heads(dim, heads, multiple=4)
        self.interaction_indexes, self.use_sta = tuple(blocks), use_sta
        vit = RotaryViT(dim, heads, max(blocks) + 1, name.startswith("dinov3"), name.endswith("s16plus"))
        self.dinov3 = vit if vit.is_dinov3 else nn.ModuleDict({"_model": vit})
        self.checkpoint_stages = check_stages(checkpoint_stages, [str(index) for index in range(len(vit.blocks))])
        self.sta = SpatialPrior(conv_inplane, norm) if use_sta else None
        details = [conv_inplane * factor * use_sta for factor in (2, 4, 4)]
        hidden = hidden_dim or dim
        self.convs = nn.ModuleList(nn.Conv2d(dim + detail, hidden, 1, bias=False) for detail in details)
        self.norms = nn.ModuleList(_norm(norm, hidden) for _ in details)
        self._set_maps({f"p{3 + index}": (hidden, stride) for index, stride in enumerate(STRIDES)})
        if not finetune:
            freeze_parts([self.dinov3])

    @property
    def size_divisibility(self) -> int:
        """What H and W must be multiples of, in pixels."""
        return STRIDES[-1] if self.use_sta else 0

    def whole_network(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of all tensors, those of the blocks behind the last map included."""
        own = {name: tuple(value.shape) for name, value in self.state_dict().items()}
        rows = [name.partition(".blocks.0.") for name in own if ".blocks.0." in name]
        return own | {f"{a}.blocks.{at}.{b}": own[f"{a}{zero}{b}"] for a, zero, b in rows for at in range(DEPTH)}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W) -> maps "p3", "p4", "p5" of strides 8, 16, 32: (N, C, 2h, 2w), (N, C, h, w) and
        (N, C, h // 2, w // 2), where h and w are H // 16 and W // 16.

        Raises:
            InputError: H or W is no multiple of 32; without the convolutions, it is less than 32.
        """
        check_batch(x, 3)
        _check_size(x.shape[2], x.shape[3], self.use_sta)
        vit = self.dinov3 if isinstance(self.dinov3, RotaryViT) else self.dinov3["_model"]
        maps = vit(x, self.interaction_indexes, self.checkpoint_stages)
        height, width = maps[0].shape[2:]
        sizes = ((2 * height, 2 * width), (height, width), (height // 2, width // 2))
        found = [
            F.interpolate(value, size, mode="bilinear", align_corners=False)
            for value, size in zip(maps * (len(sizes) // len(maps)), sizes, strict=True)
        ]
        if self.sta is not None:
            found = [torch.cat(pair, 1) for pair in zip(found, self.sta(x), strict=True)]
        layers = zip(self._out_features, found, self.convs, self.norms, strict=True)
        return {name: norm(conv(value)) for name, value, conv, norm in layers}


def _check_size(height: int, width: int, exact: bool) -> None:
    last = STRIDES[-1]
    if exact and (height % last or width % last):
        raise InputError(
            f"H and W must be multiples of {last}, not {height} and {width}: pad to {-(-height // last) * last} and "
            f"{-(-width // last) * last}."
        )
    if min(height, width) < last:
        raise InputError(f"H and W must be {last} pixels at least, not {height} and {width}.")


def _norm(norm: Norm, channels: int) -> nn.Module:
    return get_norm(norm, channels) or nn.Identity()


class SpatialPrior(nn.Module):
    """A few convolutions, whose maps of strides 8, 16 and 32 show details.

    Args:
        channels: of the first; its map, of stride 4, is an intermediate one.
        norm: behind each convolution.
    """

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()

        def halving(given: int, made: int) -> list[nn.Module]:
            return [nn.Conv2d(given, made, 3, 2, 1, bias=False), _norm(norm, made)]

        self.stem = nn.Sequential(*halving(3, channels), nn.GELU(), nn.MaxPool2d(3, 2, 1))
        self.conv2 = nn.Sequential(*halving(channels, 2 * channels))
        self.conv3 = nn.Sequential(nn.GELU(), *halving(2 * channels, 4 * channels))
        self.conv4 = nn.Sequential(nn.GELU(), *halving(4 * channels, 4 * channels))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) -> maps of 2, 4 and 4 times `channels`, of strides 8, 16 and 32."""
        maps = [self.conv2(self.stem(x))]
        for layers in (self.conv3, self.conv4):
            maps.append(layers(maps[-1]))
        return maps
