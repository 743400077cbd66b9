"""One row: a class of another library, the network here that its file is for, and how far their maps are apart."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detrex_backbones import TimmBackbone, TorchvisionBackbone, load_checkpoint
from detrex_backbones.checkpoint.report import LoadReport

__all__ = ["SIZES", "Case", "differences", "file_of", "loaded", "randomise", "timm_network", "torchvision_network"]

# (H, W) of the images.
SIZES = ((192, 256), (161, 227), (224, 224))

# What stands beside the backbone in a detector's file.
BESIDE = {"neck.convs.0.conv.weight": (16, 8, 1, 1), "transformer.encoder.layers.0.norm1.weight": (16,)}


@dataclass(frozen=True)
class Case:
    """A row.

    Args:
        peer: the library.
        name: of its class.
        build: makes the peer's network.
        ours: makes this library's.
        called: how a config calls it.
        maps: from the peer's network and images (N, 3, H, W) to its maps.
        state: of the peer's network, in the names that its files have.
        sizes: (H, W) that both run.
        note: what differs, or what to give; for the table.
        prefix: of the network in a detector's file.
        refused: why there is no such network here, and the file has to be refused by `ours`, its nearest; "" where
            there is one.
    """

    peer: str
    name: str
    build: Callable[[], nn.Module]
    ours: Callable[[], nn.Module]
    called: str
    maps: Callable[[nn.Module, Tensor], Sequence[Tensor]]
    state: Callable[[nn.Module], Mapping[str, Tensor]] = field(default=lambda net: net.state_dict())
    sizes: tuple[tuple[int, int], ...] = SIZES
    note: str = ""
    prefix: str = "backbone."
    refused: str = ""

    @property
    def id(self) -> str:
        """Of a test."""
        return f"{self.name}-{self.called.partition('(')[0]}"


def randomise(net: nn.Module) -> nn.Module:
    """Give norms, their statistics, biases, layer scales and tables values that show when they are lost."""
    generator = torch.Generator().manual_seed(0)
    for name, value in net.state_dict().items():
        if not value.is_floating_point():
            continue
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.dim() < 2 or "mean" in name or value.numel() < 2 or value.std() < 0.05:
            value += 0.2 * torch.randn(value.shape, generator=generator)
    net.eval()  # which gives nothing back in some libraries
    return net


def file_of(state: Mapping[str, Tensor], folder: Path, prefix: str = "") -> Path:
    """A detector's file with the backbone behind `prefix`; the backbone's alone without one."""
    path = folder / "file.pth"
    beside = {name: torch.ones(shape) for name, shape in BESIDE.items()} if prefix else {}
    torch.save({"model": {**{prefix + name: value for name, value in state.items()}, **beside}}, path)
    return path


def loaded(case: Case, folder: Path, prefix: str = "") -> tuple[nn.Module, nn.Module, LoadReport]:
    """The peer's network with random weights, ours with the same from its file, and the report of the load."""
    torch.manual_seed(0)
    peer = randomise(case.build())
    model = case.ours().eval()
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.fill_(torch.nan)
    report = load_checkpoint(model, file_of(case.state(peer), folder, prefix))
    return peer, model, report


@torch.no_grad()
def differences(case: Case, peer: nn.Module, model: nn.Module) -> dict[tuple[int, int], float]:
    """Of each size: the largest difference of any map over its largest value; 1.0 where shapes differ.

    Both compute in float64: what is left is no rounding.
    """
    found = {}
    peer, model = peer.double(), model.double()
    for size in case.sizes:
        image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1)).double()
        theirs, ours = list(case.maps(peer, image)), list(model(image).values())
        same = [one.shape for one in theirs] == [one.shape for one in ours]
        pairs = zip(theirs, ours, strict=True) if same else ()
        # NaN counts as infinite: of a maximum it would be forgotten.
        apart = [float(((one - other).abs().max() / one.abs().max()).nan_to_num(torch.inf)) for one, other in pairs]
        found[size] = max(apart, default=1.0)
    return found


def timm_network(name: str, **kwargs: Any) -> tuple[Callable[[], nn.Module], str]:
    """What `Case` takes for a network of timm."""
    return partial(TimmBackbone, name, **kwargs), f"TimmBackbone({name!r})"


def torchvision_network(name: str, **kwargs: Any) -> tuple[Callable[[], nn.Module], str]:
    """What `Case` takes for a network of torchvision."""
    return partial(TorchvisionBackbone, name, **kwargs), f"TorchvisionBackbone({name!r})"


def measure(case: Case) -> tuple[LoadReport, dict[tuple[int, int], float]]:
    """Load, run, compare."""
    with tempfile.TemporaryDirectory() as folder:
        peer, model, report = loaded(case, Path(folder), case.prefix)
        return report, differences(case, peer, model)
