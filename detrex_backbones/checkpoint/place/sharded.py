"""Tensors of which each process holds a part: FSDP2's parameters, and every other DTensor."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor

__all__ = ["is_sharded", "like", "local", "part", "placement"]


def is_sharded(tensor: Any) -> bool:
    """Whether it is a DTensor."""
    # Who has one has imported it: not imported here, where most never need it.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Any) -> Tensor:
    """What this process holds of it: the memory itself, and all of an ordinary tensor."""
    held: Tensor = tensor.detach().to_local() if is_sharded(tensor) else tensor
    return held


def part(target: Any, value: Tensor) -> Tensor:
    """What belongs into `local(target)`, of a whole value. Nothing is sent: each process cuts its part out."""
    if not is_sharded(target):
        return value
    cut = _cut(target, value)
    return local(_spread(target, value)) if cut is None else cut


def _cut(target: Any, value: Tensor) -> Tensor | None:
    """The part as a view; None for placements that only torch knows how to cut, with copies of what it cuts."""
    from torch.distributed.tensor import Replicate, Shard

    for kind, place, count in zip(
        target.placements, target.device_mesh.get_coordinate() or (), target.device_mesh.shape, strict=True
    ):
        if type(kind) is Shard:
            pieces = value.chunk(count, kind.dim)  # may be fewer: the last processes then hold nothing
            value = pieces[place] if place < len(pieces) else value.narrow(kind.dim, 0, 0)
        elif type(kind) is not Replicate:
            return None
    return value if value.shape == local(target).shape else None


def like(target: Any, value: Tensor) -> Tensor:
    """A whole value spread as `target` is, in memory of its own."""
    return (_spread(target, value) if is_sharded(target) else value).clone()


def _spread(target: Any, value: Tensor) -> Tensor:
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)


def placement(tensor: Any) -> str:
    """How it is spread over which processes, as text; "" for an ordinary tensor."""
    if not is_sharded(tensor):
        return ""
    return f"{list(tensor.placements)} over ranks {tensor.device_mesh.mesh.tolist()}"
