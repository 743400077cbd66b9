"""Vision transformers that see an image as so many windows, whatever its size: those of RF-DETR and LW-DETR."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex_backbones.backbones.base import Backbone, check_batch, first_channels
from detrex_backbones.backbones.plain_vit import RelativeAttention, ViTBlock, check_heads
from detrex_backbones.backbones.recompute import run_recomputed
from detrex_backbones.backbones.staged import drop_paths
from detrex_backbones.backbones.transformer_parts import DropPath, PatchEmbed, init_transformer, mlp, resize_positions
from detrex_backbones.backbones.windows import Windows
from detrex_backbones.errors import ArgumentError, InputError

__all__ = ["LWDETRViT", "WindowedDINOv2"]

EPS = 1e-6


class WindowedViT(Backbone):
    """Patches and positions, cut into `num_windows` x `num_windows` windows, through blocks that subclasses give.

    Args:
        patch_size: side of a patch in pixels.
        in_chans: channels of the image.
        embed_dim: channels of the tokens.
        num_heads: attention heads of each block.
        depth: number of blocks of the whole network; those behind the last map are left out.
        num_windows: windows in a row, and in a column.
        window_block_indexes: the blocks whose attention stays within windows; the others' is over the whole map.
        out_indices: how many blocks are in front of each map.
        positions: of the table, those of class tokens included.
        use_act_checkpoint: whether blocks are computed again in the backward pass instead of kept.
    """

    def __init__(
        self,
        *,
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        num_heads: int,
        depth: int,
        num_windows: int,
        window_block_indexes: Collection[int],
        out_indices: Sequence[int],
        positions: int,
        use_act_checkpoint: bool,
    ) -> None:
        super().__init__()
        check_heads(embed_dim, num_heads)
        if not out_indices or len({*out_indices}) != len(out_indices) or not {*out_indices} <= {*range(1, depth + 1)}:
            raise ArgumentError(f"out_indices={out_indices!r}: at least one of 1 to depth={depth}, none of them twice.")
        if num_windows < 1:
            raise ArgumentError(f"num_windows={num_windows!r} must be a whole number from 1.")
        self.patch_size, self.num_windows = patch_size, num_windows
        self.out_indices, self.depth = tuple(out_indices), depth
        self.window_block_indexes = frozenset(window_block_indexes)
        self.use_act_checkpoint = use_act_checkpoint
        self.patch_embed = PatchEmbed(patch_size, patch_size, in_chans=in_chans, embed_dim=embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, embed_dim))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self._set_maps({f"p{index}": (embed_dim, patch_size) for index in self.out_indices})

    @property
    def size_divisibility(self) -> int:
        """What H and W must be multiples of, in pixels: a patch of every window."""
        return self.patch_size * self.num_windows

    def whole_network(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of all tensors, those of the blocks behind the last map included."""
        own = {name: tuple(value.shape) for name, value in self.state_dict().items()}
        block = {name.removeprefix("blocks.0."): shape for name, shape in own.items() if name.startswith("blocks.0.")}
        return own | {f"blocks.{at}.{name}": shape for at in range(self.depth) for name, shape in block.items()}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, C, H, W), multiples of `size_divisibility` -> {name: map (N, C', H / stride, W / stride)}."""
        check_batch(x, first_channels(self.patch_embed, None))
        batch, _, *size = x.shape
        step = self.size_divisibility
        if size[0] % step or size[1] % step:
            raise InputError(
                f"H and W must be multiples of {step} (patches of {self.patch_size} pixels in {self.num_windows} "
                f"windows), not {size[0]} and {size[1]}: pad to {-(-size[0] // step) * step} and "
                f"{-(-size[1] // step) * step}."
            )
        tokens = self._cut(self.patch_embed(x))
        nothing_to_cut = Windows(tokens, 0)
        maps = {}
        for index, block in enumerate(self.blocks):  # type: ignore[arg-type]
            groups = tokens.shape[0]
            whole = index not in self.window_block_indexes
            tokens = tokens.reshape(batch, -1, 1, tokens.shape[-1]) if whole else tokens
            recomputed = self.use_act_checkpoint and torch.is_grad_enabled()
            tokens = run_recomputed(block, tokens, nothing_to_cut) if recomputed else block(tokens, nothing_to_cut)
            tokens = tokens.reshape(groups, -1, 1, tokens.shape[-1])
            if index + 1 in self.out_indices:
                maps[index + 1] = self._joined(tokens, size[0] // self.patch_size, size[1] // self.patch_size)
        return {f"p{index}": maps[index] for index in self.out_indices}

    def _cut(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> (N * windows, tokens of a window, 1, C), row by row."""
        batch, height, width, channels = x.shape
        count = self.num_windows
        x = x.view(batch, count, height // count, count, width // count, channels).transpose(2, 3)
        return x.reshape(batch * count * count, -1, 1, channels)

    def _joined(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """What `_cut` made, as (N, C, H, W)."""
        count, channels = self.num_windows, tokens.shape[-1]
        x = tokens.reshape(-1, count, count, height // count, width // count, channels)
        return x.transpose(2, 3).reshape(-1, height, width, channels).permute(0, 3, 1, 2)


class LWDETRViT(WindowedViT):
    """The ViT of LW-DETR (Chen et al. 2024). Arguments and parameter names are its authors'.

    Parameters: `patch_embed.proj.weight`, `pos_embed`, `blocks.0.attn.q_bias`, `blocks.0.gamma_1`, ... Files of
    transformers' `LwDetrViTBackbone` fit, too.

    Args:
        patch_size: side of a patch in pixels.
        in_chans: channels of the image.
        embed_dim: channels of the tokens. LW-DETR tiny and small 192, medium 384.
        depth: number of blocks. Tiny 6, the others 10.
        num_heads: attention heads of each block; 12.
        mlp_ratio: hidden channels of the perceptrons, relative to `embed_dim`.
        qkv_bias: whether query, key and value have a bias. With `use_cae` query and value have.
        drop_path_rate: stochastic depth of the last block; it grows from 0 block by block.
        window_block_indexes: as of detectron2's ViT. Tiny 0, 2, 4; the others 0, 1, 3, 6, 7, 9.
        use_act_checkpoint: whether blocks are computed again in the backward pass instead of kept.
        pretrain_img_size: side in pixels of the images that the positions were trained on; they are resized.
        pretrain_use_cls_token: whether their table begins with one of a class token, which isn't used.
        out_feature_indexes: the blocks that give maps, -1 for the last. Block 5 gives "p6", as six blocks are in front
            of it.
        use_cae: whether blocks have the factors and biases of CAE, as all published weights do.
        num_windows: windows in a row, and in a column.

    Raises:
        ArgumentError: blocks that aren't there, channels that the heads don't divide.
    """

    def __init__(
        self,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        window_block_indexes: Collection[int] = (),
        use_act_checkpoint: bool = False,
        pretrain_img_size: int = 224,
        pretrain_use_cls_token: bool = True,
        out_feature_indexes: Sequence[int] = (-1,),
        use_cae: bool = True,
        num_windows: int = 4,
    ) -> None:
        super().__init__(
            patch_size=patch_size,
            in_chans=in_chans,
            embed_dim=embed_dim,
            num_heads=num_heads,
            depth=depth,
            num_windows=num_windows,
            window_block_indexes=window_block_indexes,
            out_indices=[index + 1 + depth * (index < 0) for index in out_feature_indexes],
            positions=(pretrain_img_size // patch_size) ** 2 + bool(pretrain_use_cls_token),
            use_act_checkpoint=use_act_checkpoint,
        )
        self.pretrain_use_cls_token = pretrain_use_cls_token
        bias = "query and value" if use_cae else "all" if qkv_bias else "none"
        self.blocks = nn.ModuleList()
        for path in drop_paths(drop_path_rate, [depth])[0][: max(self.out_indices)]:
            attention = RelativeAttention(embed_dim, num_heads, bias, 0, True)
            perceptron = mlp(embed_dim, int(embed_dim * mlp_ratio))
            block = ViTBlock(embed_dim, attention, perceptron, path, _norm, 0, None, use_cae)
            for gamma in (block.gamma_1, block.gamma_2) if use_cae else ():
                nn.init.constant_(gamma, 0.1)  # type: ignore[arg-type]
            self.blocks.append(block)
        self.apply(init_transformer)

    def _cut(self, x: Tensor) -> Tensor:
        positions = resize_positions(self.pos_embed, self.pretrain_use_cls_token, x.shape[1], x.shape[2])
        return super()._cut(x + positions)


class WindowedDINOv2(WindowedViT):
    """DINOv2 (Oquab et al. 2023) in windows, as RF-DETR runs it (Robinson et al. 2025).

    Parameters have DINOv2's names, so that its own files fit as well as RF-DETR's and those of transformers'
    `RfDetrDinov2Backbone`: `cls_token`, `pos_embed`, `blocks.0.attn.qkv.weight`, `blocks.0.ls1.gamma`, ... Every window
    has a class token of its own. Where H and W differ, RF-DETR's code takes other tokens for a window than those of a
    rectangle; here each window is one.

    Args:
        img_size: side in pixels of the images that the positions are for; they are resized, with antialiasing.
        patch_size: side of a patch in pixels.
        in_chans: channels of the image.
        embed_dim: channels of the tokens. DINOv2-S 384, B 768.
        depth: number of blocks.
        num_heads: attention heads of each block. DINOv2-S 6, B 12.
        mlp_ratio: hidden channels of the perceptrons, relative to `embed_dim`.
        num_windows: windows in a row, and in a column.
        out_indices: how many blocks are in front of each map: 3 gives "p3".
        window_block_indexes: the blocks whose attention stays within windows. None: all but those numbered as
            `out_indices`, as RF-DETR has it.
        drop_path_rate: stochastic depth of every block.
        use_act_checkpoint: whether blocks are computed again in the backward pass instead of kept.

    Raises:
        ArgumentError: blocks that aren't there, channels that the heads don't divide.
    """

    def __init__(
        self,
        img_size: int = 518,
        patch_size: int = 14,
        in_chans: int = 3,
        embed_dim: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        mlp_ratio: float = 4.0,
        num_windows: int = 4,
        out_indices: Sequence[int] = (2, 5, 8, 11),
        window_block_indexes: Collection[int] | None = None,
        drop_path_rate: float = 0.0,
        use_act_checkpoint: bool = False,
    ) -> None:
        inner = set(range(depth)) - {*out_indices} if window_block_indexes is None else window_block_indexes
        super().__init__(
            patch_size=patch_size,
            in_chans=in_chans,
            embed_dim=embed_dim,
            num_heads=num_heads,
            depth=depth,
            num_windows=num_windows,
            window_block_indexes=inner,
            out_indices=out_indices,
            positions=(img_size // patch_size) ** 2 + 1,
            use_act_checkpoint=use_act_checkpoint,
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        nn.init.normal_(self.cls_token, std=1e-6)
        self.blocks = nn.ModuleList(
            DINOv2Block(embed_dim, num_heads, mlp_ratio, DropPath(drop_path_rate)) for _ in range(max(self.out_indices))
        )
        self.norm = _norm(embed_dim)
        self.apply(init_transformer)

    def _cut(self, x: Tensor) -> Tensor:
        table, size = self.pos_embed[:, 1:], x.shape[1:3]
        side = int(table.shape[1] ** 0.5)
        square = table.view(1, side, side, -1)
        if (side, side) != tuple(size):
            # In float32: torch's antialiasing knows no bfloat16 on the CPU.
            resized = F.interpolate(square.permute(0, 3, 1, 2).float(), size, mode="bicubic", antialias=True)
            square = resized.permute(0, 2, 3, 1).to(square.dtype)
        windows = super()._cut(x + square)
        first = (self.cls_token + self.pos_embed[:, :1])[:, :, None].expand(windows.shape[0], -1, -1, -1)
        return torch.cat([first, windows], 1)

    def _joined(self, tokens: Tensor, height: int, width: int) -> Tensor:
        return super()._joined(self.norm(tokens[:, 1:]), height, width)


class DINOv2Block(nn.Module):
    """Attention and a perceptron, each with learnt factors, beside a shortcut."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, drop_path: DropPath) -> None:
        super().__init__()
        self.norm1 = _norm(dim)
        self.attn = RelativeAttention(dim, num_heads, "all", 0, True)
        self.ls1 = Scale(dim)
        self.drop_path = drop_path
        self.norm2 = _norm(dim)
        self.mlp = mlp(dim, int(dim * mlp_ratio))
        self.ls2 = Scale(dim)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        """(N, L, 1, C) -> the same shape."""
        x = x + self.drop_path(self.ls1(self.attn(self.norm1(x), windows)))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))  # type: ignore[no-any-return]


class Scale(nn.Module):
    """Learnt factors of the channels, from 1."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> the same shape."""
        return x * self.gamma


def _norm(dim: int) -> nn.Module:
    return nn.LayerNorm(dim, eps=EPS)
