"""What the ranks of a test do together; run in processes of their own, see `launch`."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_module, distribute_tensor

from detrex_backbones import DetectionCheckpointer, load_checkpoint
from detrex_backbones.checkpoint.place.distributed import load_checkpoint_distributed
from detrex_backbones.checkpoint.place.ranks import Ranks
from tests.checkpoint.nets import raw, snapshot

FILE = "weights.pth"


class Small(nn.Module):
    """Odd sizes, which no number of ranks divides; several dtypes; a tensor without elements; a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.linear = nn.Linear(5, 7)
        self.low = nn.Linear(7, 2, dtype=torch.bfloat16)
        self.none = nn.Parameter(torch.empty(0, 3))
        self.mask = nn.Buffer(torch.tensor([True, False, True]))
        self.pixel_mean = [1.0]


def state(seed: int = 0) -> dict[str, Tensor]:
    """Values for a `Small`, all from a seed."""
    torch.manual_seed(seed)
    values = {key: torch.randn(value.shape) for key, value in Small().state_dict().items()}
    values["mask"] = torch.tensor([False, True, True])
    values["norm.num_batches_tracked"] = torch.tensor(7)
    return values


def whole(model: nn.Module) -> dict[str, bytes]:
    """Every byte of every tensor, of sharded ones too."""
    tensors = model.state_dict()
    return {key: raw(value.full_tensor() if isinstance(value, DTensor) else value) for key, value in tensors.items()}


def sharded(model: nn.Module) -> nn.Module:
    """FSDP2, its submodules first, as its manual has it."""
    for part in (model.conv, model.linear, model.low):
        fully_shard(part)
    return fully_shard(model)


def as_dtensors(model: nn.Module) -> nn.Module:
    """Some parameters cut along their second dimension, the others replicated."""
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))

    def split(name: str, module: nn.Module, mesh: Any) -> None:
        for key, value in list(module.named_parameters(recurse=False)):
            places = [Shard(1)] if value.dim() > 1 else [Replicate()]
            module.register_parameter(key, nn.Parameter(distribute_tensor(value.detach(), mesh, places)))

    return distribute_module(model, mesh, split)


def two_ways(model: nn.Module) -> nn.Module:
    """FSDP2 over tensor parallelism: four ranks as two times two."""
    from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    parallelize_module(model, mesh["tensor"], {"even": ColwiseParallel()})
    return fully_shard(model, mesh=mesh["data"])


class Even(nn.Module):
    """What two ways of sharding divide."""

    def __init__(self) -> None:
        super().__init__()
        self.even = nn.Linear(6, 8)


def told(do: Callable[[], Any]) -> str:
    """The error that a call ends in, as "Type: message"."""
    try:
        do()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def opened() -> list[str]:
    """The names of files that this process opens from now on."""
    names: list[str] = []
    sys.addaudithook(lambda event, args: names.append(str(args[0])) if event == "open" else None)
    return names


def loads(rank: int, folder: Path) -> dict[str, Any]:
    """Loads that work. The file lies where only rank 0 sees it."""
    found: dict[str, Any] = {"seen": Path(FILE).exists()}
    files = opened()
    held: set[int] = set()
    send_tensor = Ranks.send_tensor

    def watched(self: Ranks, tensor: Tensor) -> Tensor:
        held.add(tensor.untyped_storage().data_ptr())
        return send_tensor(self, tensor)

    Ranks.send_tensor = watched
    model = Small()
    report = load_checkpoint_distributed(model, FILE)
    Ranks.send_tensor = send_tensor
    found["plain"] = whole(model)
    found["report"] = report.to_dict()
    found["held"] = len(held - {0})
    found["opened"] = sum(name.endswith(FILE) for name in files)
    for name, shard in (("fsdp", sharded), ("dtensor", as_dtensors)):
        model = shard(Small())
        load_checkpoint_distributed(model, FILE)
        found[name] = whole(model)
        alone = shard(Small())
        load_checkpoint(alone, f"../rank0/{FILE}")
        found[f"{name} alone"] = whole(alone)
    pair = distributed.new_group([0, 1])
    if rank < 2:
        model = Small()
        load_checkpoint_distributed(model, FILE, group=pair)
        found["pair"] = whole(model)
    return found


def refusals(rank: int, folder: Path) -> dict[str, tuple[str, bool]]:
    """Loads that can't work: each rank's error, and whether its model is as it was."""
    last = rank == distributed.get_world_size() - 1
    found: dict[str, tuple[str, bool]] = {}

    def attempt(name: str, path: str = FILE, model: nn.Module | None = None, **options: Any) -> None:
        model = model if model is not None else Small()
        meta = any(value.is_meta for value in model.parameters())
        before = None if meta else snapshot(model)
        text = told(lambda: load_checkpoint_distributed(model, path, timeout=60, **options))
        found[name] = text, meta or snapshot(model) == before

    attempt("path", f"other-{FILE}" if last else FILE)
    attempt("options", prefix="backbone" if last else None)
    attempt("unknown option", **({"scoop": ""} if last else {}))
    attempt("no file", "nothing.pth")
    attempt("damaged", "damaged.pth")
    attempt("unfit", model=nn.Linear(3, 4))
    model = Small()
    if last:
        model.linear = nn.Linear(6, 7)
    attempt("shape", model=model)
    model = Small()
    if last:
        model.extra = nn.Parameter(torch.zeros(1))
    attempt("keys", model=model)
    model = Small()
    model.pixel_mean = torch.tensor([2.0 if last else 1.0])
    attempt("traits", model=model)
    model = Small()
    attempt("meta", model=model.to("meta") if last else model)
    model = Small()
    load_checkpoint_distributed(model, FILE, timeout=60)
    found["afterwards"] = "no error", whole(model) == {key: raw(value) for key, value in _cast(state()).items()}
    return found


def _cast(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: values[key].to(value.dtype) for key, value in Small().state_dict().items()}


def dies(rank: int, folder: Path, victim: int, tensors: int, how: int, timeout: float) -> tuple[str, float]:
    """A load in which one rank gets a signal before so many tensors were sent. The survivors' error, and seconds."""
    send_tensor, count = Ranks.send_tensor, 0

    def struck(self: Ranks, tensor: Tensor) -> Tensor:
        nonlocal count
        if rank == victim and count == tensors:
            os.kill(os.getpid(), how)
        count += 1
        return send_tensor(self, tensor)

    Ranks.send_tensor = struck
    if rank == victim and tensors < 0:
        os.kill(os.getpid(), how)
    start = time.monotonic()
    return told(lambda: load_checkpoint_distributed(Small(), FILE, timeout=timeout)), time.monotonic() - start


KILL = int(signal.SIGKILL)


def train(model: nn.Module, steps: int, optimizer: torch.optim.Optimizer, scheduler: Any) -> None:
    """Steps on the same data everywhere, without noise."""
    for step in range(steps):
        torch.manual_seed(step)
        optimizer.zero_grad()
        model.linear(torch.randn(4, 5)).square().sum().backward()
        optimizer.step()
        scheduler.step()


def trainer(shard: Callable[[nn.Module], nn.Module], folder: Path) -> tuple[Any, Any, Any, DetectionCheckpointer]:
    """A model with its optimiser, scheduler and checkpointer."""
    torch.manual_seed(1)
    model = shard(Small())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4, 4])
    return model, optimizer, scheduler, DetectionCheckpointer(model, folder, optimizer=optimizer, scheduler=scheduler)


def folders(rank: int, folder: Path) -> dict[str, Any]:
    """Saving and loading by the checkpointer, of sharded models where these can be trained without a GPU."""
    if not hasattr(torch.cpu.Stream, "record_event"):
        return single_file(rank)
    found: dict[str, Any] = {}
    model, optimizer, scheduler, checkpointer = trainer(sharded, folder / "run")
    train(model, 3, optimizer, scheduler)
    checkpointer.save("first", iteration=2)
    checkpointer.save("first", iteration=3)
    found["saved"] = whole(model)
    train(model, 3, optimizer, scheduler)
    found["went on"] = whole(model)

    model, optimizer, scheduler, checkpointer = trainer(sharded, folder / "run")
    found["rest"] = checkpointer.resume_or_load("")
    found["resumed"] = whole(model)
    found["milestones"] = dict(scheduler.milestones)
    train(model, 3, optimizer, scheduler)
    found["went on after"] = whole(model)

    model = Small()
    report = load_checkpoint_distributed(model, folder / "run" / "first")
    found["unsharded"], found["format"] = whole(model), report.format
    model = as_dtensors(Small())
    DetectionCheckpointer(model, read_once=False).load(folder / "run" / "first")
    found["otherwise sharded"] = whole(model)

    # Ours in torch's own reader, and torch's own folder in ours.
    model = sharded(Small())
    theirs = {"model": model.state_dict()}
    dcp.load(theirs, checkpoint_id=folder / "run" / "first")
    model.load_state_dict(theirs["model"])
    found["read by torch"] = whole(model)
    dcp.save({"model": model.state_dict()}, checkpoint_id=folder / "theirs")
    model = Small()
    load_checkpoint(model, folder / "theirs")
    found["written by torch"] = whole(model)
    return found | single_file(rank)


def single_file(rank: int) -> dict[str, Any]:
    """A run of ordinary models, whose folder only rank 0 sees, is resumed by all."""
    model, optimizer, scheduler, checkpointer = trainer(lambda model: model, Path("alone"))
    train(model, 3, optimizer, scheduler)
    checkpointer.save("first", iteration=3)
    train(model, 3, optimizer, scheduler)
    found = {"one went on": whole(model)}
    model, optimizer, scheduler, checkpointer = trainer(lambda model: model, Path("alone"))
    checkpointer.read_once = True
    found["one rest"] = checkpointer.resume_or_load("")
    train(model, 3, optimizer, scheduler)
    found["one went on after"] = whole(model)
    Path("file").write_text("")
    found["one full"] = told(lambda: DetectionCheckpointer(sharded(Small()), "file/run").save("first")), True
    found["one seen"] = Path("alone").exists()
    unfit = torch.optim.SGD(nn.Linear(2, 2).parameters() if rank else model.parameters(), lr=0.1)
    checkpointer = DetectionCheckpointer(model, "alone", read_once=True, optimizer=unfit)
    before = snapshot(model)
    found["one unfit"] = told(lambda: checkpointer.resume_or_load("")), snapshot(model) == before
    return found


def all_of_two(rank: int, folder: Path) -> dict[str, Any]:
    """Everything that two ranks are enough for."""
    return {"loads": loads(rank, folder), "refusals": refusals(rank, folder), "folders": folders(rank, folder)}
