"""Batch normalisation over the images of all processes, however many each has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn

from detrex_backbones.errors import ArgumentError

__all__ = ["NaiveSyncBatchNorm"]


class NaiveSyncBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d that in training takes the mean of all processes' statistics. Behaviour and names are detectron2's.

    `torch.nn.SyncBatchNorm` weighs each process by its number of pixels; this one counts all alike, or by images, and
    runs on a CPU too. In evaluation, and where there is one process, it is a BatchNorm2d.

    Args:
        *args: as of `torch.nn.BatchNorm2d`.
        stats_mode: "" to count processes alike, each of which must have images; "N" to count them by their images, of
            which some may have none.
        **kwargs: as of `torch.nn.BatchNorm2d`.

    Raises:
        ArgumentError: another stats_mode.
    """

    def __init__(self, *args: Any, stats_mode: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if stats_mode not in ("", "N"):
            raise ArgumentError(f"stats_mode={stats_mode!r} is not known. Allowed: '', 'N'.")
        self._stats_mode = stats_mode

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` of shape (N, C, H, W); the result has its shape and dtype."""
        if not self.training or _world_size() == 1:
            return super().forward(x)
        values = x.float() if x.dtype == torch.float16 else x  # whose squares would overflow
        mean, square, momentum = self._statistics(values)
        variance = square - mean * mean
        with torch.no_grad():
            self.running_mean += momentum * (mean - self.running_mean)  # type: ignore[operator]
            self.running_var += momentum * (variance - self.running_var)  # type: ignore[operator]
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (values * scale[:, None, None] + shift[:, None, None]).to(x.dtype)

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor, Any]:
        """Mean and mean square of each channel over all processes, and the momentum of the running statistics."""
        from torch.distributed.nn.functional import all_reduce  # which not every build of torch has

        images = len(x)
        if not images and self._stats_mode == "":
            raise ArgumentError("a process without images needs NaiveSyncBatchNorm(..., stats_mode='N').")
        # Without images the mean would be no number; the sum of nothing keeps the gradient's way open.
        own = torch.cat([x.mean((0, 2, 3)), (x * x).mean((0, 2, 3))]) if images else x.sum((0, 2, 3)).repeat(2)
        if self._stats_mode == "":
            mean, square = (all_reduce(own) / _world_size()).chunk(2)  # type: ignore[no-untyped-call]
            return mean, square, self.momentum
        summed = all_reduce(torch.cat([own * images, own.new_tensor([float(images)])]))  # type: ignore[no-untyped-call]
        total = summed[-1].detach()
        mean, square = (summed[:-1] / total.clamp(min=1)).chunk(2)
        return mean, square, total.clamp(max=1) * (self.momentum or 0.0)


def _world_size() -> int:
    ready = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if ready else 1
