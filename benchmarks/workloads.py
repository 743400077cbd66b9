"""What is run of a network: which sizes, precisions and layouts on which device, and a training step of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.measure import Options
from benchmarks.networks import maps_of, settle

__all__ = ["ON_A_GPU", "Workload", "prepare", "train_step", "workloads"]

ON_A_GPU = "2 and 8x800x1333, TF32 and bf16, both layouts"
DETECTOR = (800, 1333)  # height and width that detectors are trained with


@dataclass(frozen=True)
class Workload:
    """Images (batch, 3, height, width), how precise, how laid out, and where.

    Args:
        batch: images.
        size: height and width.
        autocast: bfloat16 autocast; otherwise float32, on a GPU with TF32.
        channels_last: the layout.
        device: "cpu" or "cuda".
    """

    batch: int
    size: tuple[int, int] = DETECTOR
    autocast: bool = False
    channels_last: bool = False
    device: str = "cpu"

    def __str__(self) -> str:
        kind = "bf16" if self.autocast else "float32"
        layout = ", channels_last" if self.channels_last else ""
        return f"{self.batch}x{self.size[0]}x{self.size[1]}, {kind}{layout}"

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout, as torch says it."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def images(self) -> Tensor:
        """Noise of this shape and layout on the device."""
        noise = torch.randn(self.batch, 3, *self.size, generator=torch.Generator().manual_seed(0))
        return noise.to(self.device).to(memory_format=self.memory_format)

    def casting(self) -> torch.autocast:
        """The context to run it in."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.autocast)


def workloads(options: Options) -> Iterator[Workload]:
    """Detectors' sizes: one image on a CPU, in both layouts; on a GPU 2 and 8, in both precisions and both layouts."""
    if options.device == "cpu":
        yield Workload(1)
        yield Workload(1, channels_last=True)
        return
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    for batch in (2, 8):
        for autocast in (False, True):
            for channels_last in (False, True):
                yield Workload(batch, autocast=autocast, channels_last=channels_last, device=options.device)


def prepare(net: nn.Module, work: Workload) -> nn.Module:
    """On the device, in the layout."""
    return settle(net, work.device, work.memory_format)


def train_step(net: nn.Module, images: Tensor, work: Workload) -> None:
    """Forward and backward, of the mean of every map; the gradients are dropped again."""
    with work.casting():
        loss = torch.stack([value.float().mean() for value in maps_of(net, images)]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    net.zero_grad(set_to_none=True)
