"""One process or many: what torchrun starts, torch joins, and the rest of training need not know about.

The engines are torch's own: DistributedDataParallel, which keeps the whole model on each process, and FSDP2
(`fully_shard`), which keeps a part of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from detrex_backbones.errors import DeviceError

__all__ = ["Processes", "is_first", "processes"]


def is_first() -> bool:
    """Whether this is the first process of the run, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


@dataclass(frozen=True)
class Processes:
    """Which process this is, of how many, and where it computes."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether it is the one that writes files."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            distributed.barrier()

    def gather(self, value: Any) -> list[Any]:
        """The value of each process, on all of them; it is pickled between processes of one run."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values

    def mean(self, values: Sequence[Tensor]) -> list[float]:
        """The mean over all processes of each of some numbers."""
        numbers = torch.stack([value.detach().float() for value in values])
        if self.world > 1:
            distributed.all_reduce(numbers)
        return [float(value) for value in numbers / self.world]

    def from_first(self, value: Any) -> Any:
        """The first process's value, on all of them."""
        values = [value]
        if self.world > 1:
            distributed.broadcast_object_list(values, src=0)
        return values[0]

    def share_buffers(self, model: nn.Module) -> None:
        """Give all the first one's statistics of batch norms, which each has counted on its own images."""
        if self.world > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)

    def wrap(self, model: nn.Module, kind: str, *, find_unused_parameters: bool = False) -> nn.Module:
        """The model as the processes train it together.

        Args:
            model: on its device, the same on all processes. FSDP2 changes it in place.
            kind: "ddp" or "fsdp2".
            find_unused_parameters: of DDP.
        """
        if self.world == 1:
            return model
        if kind == "fsdp2":
            return self._shard(model)
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids, find_unused_parameters=find_unused_parameters)

    def _shard(self, model: nn.Module) -> nn.Module:
        """Each part of the network below the FPN is gathered and freed by itself, what is left in one piece."""
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.world,))
        backbone: Any = model.get_submodule("backbone")
        below: nn.Module = getattr(backbone, "bottom_up", None) or getattr(backbone, "net", backbone)
        for part in below.children():
            if not isinstance(part, nn.ModuleList | nn.ModuleDict) and any(True for _ in part.parameters()):
                fully_shard(part, mesh=mesh)  # type: ignore[call-overload,unused-ignore]
        fully_shard(model, mesh=mesh)  # type: ignore[call-overload,unused-ignore]
        return model


@contextmanager
def processes(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun has started, if it has; a process group that is there already is used.

    Where one fails, its error ends it, and torchrun ends the others.

    Args:
        device: "cuda" becomes this process's own GPU.

    Raises:
        DeviceError: more processes on this machine than GPUs.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if distributed.is_available() and distributed.is_initialized():
        yield Processes(distributed.get_rank(), distributed.get_world_size(), device)
        return
    if world == 1:
        yield Processes(0, 1, device)
        return
    if device.type == "cuda":
        local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= there:
            raise DeviceError(f"process {local} of this machine has no GPU: there are {there}. Lower --nproc-per-node.")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    yield Processes(distributed.get_rank(), world, device)
    distributed.destroy_process_group()  # not after an error: it would wait for the others
