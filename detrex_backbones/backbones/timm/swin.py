"""Shifted windows as detectors compute them: maps are padded to whole windows first, and rolled then.

timm rolls first. Where a map is no multiple of the window, its shifted windows so hold other neighbours than those that
the weights were trained with: Microsoft's detection code, detectron2, mmdet, torchvision and transformers pad first.
Papers: Swin Transformer (Liu et al., 2021), Swin Transformer V2 (Liu et al., 2022).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from torch import Tensor, nn

__all__ = ["pad_then_roll"]

MASKED = -100.0  # as in Microsoft's code: it leaves other windows' values next to nothing


def pad_then_roll(net: nn.Module) -> nn.Module:
    """The network with its Swin blocks, V1 and V2, changed in place; everything else stays, all names too."""
    for part in net.modules():
        if type(part) in PADDED_FIRST:
            part.__class__ = PADDED_FIRST[type(part)]
    return net


class _PaddedFirst(nn.Module):
    """What both versions' blocks have in common: attention within windows of a map.

    Whether a side is shifted is decided by the map in hand: not where it has one window, as in torchvision and as the
    classifiers were trained. timm decides it when the network is made, for the size that it is made for.
    """

    window_size: tuple[int, int]
    target_shift_size: tuple[int, int]
    attn: nn.Module

    def _attn(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) -> attention of its windows, the same shape."""
        batch, height, width, channels = x.shape
        rows, columns = self.window_size
        x = F.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
        padded = (x.shape[1], x.shape[2])
        shifts = any(self.target_shift_size)
        down = rows // 2 if shifts and padded[0] > rows else 0
        right = columns // 2 if shifts and padded[1] > columns else 0
        mask = None
        if down or right:
            x = torch.roll(x, (-down, -right), (1, 2))
            mask = self._mask(padded, (down, right), x)
        grid = (padded[0] // rows, rows, padded[1] // columns, columns)
        windows = x.view(batch, *grid, channels).transpose(2, 3).reshape(-1, rows * columns, channels)
        windows = self.attn(windows, mask=mask)
        windows = windows.view(batch, grid[0], grid[2], rows, columns, channels)
        x = windows.transpose(2, 3).reshape(batch, *padded, channels)
        if mask is not None:
            x = torch.roll(x, (down, right), (1, 2))
        return x[:, :height, :width].contiguous()

    def _mask(self, padded: tuple[int, int], shift: tuple[int, int], like: Tensor) -> Tensor:
        """(windows, window area, window area): what keeps pixels apart that only the roll has brought together."""
        # Only the last windows of a side hold two regions; windows are compared with themselves alone.
        rows, columns = (
            (torch.arange(size, device=like.device) >= size - shifted).int().view(-1, window)
            for size, window, shifted in zip(padded, self.window_size, shift, strict=True)
        )
        region = 2 * rows[:, None, :, None] + columns[None, :, None, :]
        region = region.reshape(-1, self.window_size[0] * self.window_size[1])
        apart = region[:, None, :] != region[:, :, None]
        return torch.zeros(apart.shape, dtype=like.dtype, device=like.device).masked_fill(apart, MASKED)


class _SwinBlock(_PaddedFirst, SwinTransformerBlock):  # type: ignore[misc]
    """Swin's block, padded first."""


class _SwinV2Block(_PaddedFirst, SwinTransformerV2Block):  # type: ignore[misc]
    """Swin V2's block, padded first."""


PADDED_FIRST: dict[type[nn.Module], type[nn.Module]] = {
    SwinTransformerBlock: _SwinBlock,
    SwinTransformerV2Block: _SwinV2Block,
}
