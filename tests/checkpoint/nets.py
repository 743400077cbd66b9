"""Networks, files and comparisons that the tests of the loader share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detrex_backbones import BasicStem, ResNet, load_checkpoint, make_stage
from detrex_backbones.errors import CheckpointError, CheckpointMatchError
from tests.reference import assert_close, noise, torchvision_maps, torchvision_net

IMAGES = noise(1, 3, 49, 65)

RES = ("res2", "res3", "res4", "res5")

# torchvision's name -> how our `make_stage` builds the same network.
FAMILY: dict[str, dict[str, int]] = {
    "resnet18": {"depth": 18},
    "resnet50": {"depth": 50},
    "resnext50_32x4d": {"depth": 50, "num_groups": 32, "width_per_group": 4},
    "wide_resnet50_2": {"depth": 50, "width_per_group": 128},
}


@cache
def theirs(name: str = "resnet18") -> nn.Module:
    """torchvision's network with random weights and running statistics. Shared between tests: not to be changed."""
    return torchvision_net(name)


@cache
@torch.no_grad()
def their_maps(name: str = "resnet18") -> dict[str, Tensor]:
    """What torchvision's network makes of `IMAGES`, under our names of the maps."""
    return torchvision_maps(theirs(name), IMAGES)


def weights(name: str = "resnet18", *, counters: bool = True) -> dict[str, Tensor]:
    """A state dict as torchvision's files have it; those of 2017 have no batch counters."""
    state = theirs(name).state_dict()
    return {key: value for key, value in state.items() if counters or not key.endswith("num_batches_tracked")}


def ours(
    depth: int = 18,
    *,
    norm: str = "FrozenBN",
    num_classes: int | None = None,
    out_features: Iterable[str] = RES,
    **stages: Any,
) -> ResNet:
    """Our ResNet, with weights that no file has."""
    blocks = make_stage(depth=depth, norm=norm, **stages)
    return ResNet(BasicStem(norm=norm), blocks, num_classes=num_classes, out_features=list(out_features)).eval()


def empty(*args: Any, **kwargs: Any) -> ResNet:
    """As `ours`, without the time that drawing weights takes: they are all one number."""
    with torch.device("meta"):
        net = ours(*args, **kwargs)
    net.to_empty(device="cpu")
    with torch.no_grad():
        for value in net.state_dict().values():
            value.fill_(0.25 if value.is_floating_point() else 7)
    return net


@torch.no_grad()
def assert_same_features(net: nn.Module, name: str = "resnet18", maps: Iterable[str] = RES) -> None:
    """Every map of ours is that of torchvision's network of this name."""
    expected, found = their_maps(name), net(IMAGES)
    assert set(found) == set(maps)
    for key, value in found.items():
        assert_close(value, expected[key])


def snapshot(model: nn.Module) -> dict[str, bytes]:
    """Every byte of every tensor."""
    return {key: raw(value) for key, value in model.state_dict().items()}


def raw(tensor: Tensor) -> bytes:
    """The bytes of a tensor of any dtype and shape."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_same_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """The same names, shapes, dtypes and bytes."""
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert (found[key].shape, found[key].dtype) == (value.shape, value.dtype), key
        assert raw(found[key]) == raw(value), key


def converted(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What detectron2's converter of torchvision files (tools/convert-torchvision-to-d2.py) pickles.

    Everything that is no stage is put under "stem.", the classifier and its counter included.
    """
    model: dict[str, np.ndarray] = {}
    for key, value in state.items():
        name = key if "layer" in key else f"stem.{key}"
        name = re.sub(r"layer(\d)", lambda found: f"res{int(found[1]) + 1}", name)
        name = re.sub(r"bn(\d)", r"conv\1.norm", name)
        name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        model[name] = value.numpy()
    return {"model": model, "__author__": "torchvision", "matching_heuristics": True}


def small_state() -> dict[str, Tensor]:
    """A few tensors of the kinds that state dicts have."""
    return {
        "conv.weight": noise(4, 3, 3, 3, seed=1),
        "conv.bias": noise(4, seed=2),
        "norm.running_var": noise(4, seed=3).abs(),
        "norm.num_batches_tracked": torch.tensor(12),
    }


def arrays(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """As numpy arrays."""
    return {key: value.numpy() for key, value in state.items()}


class Detector(nn.Module):
    """A backbone deep in a model that has weights of its own."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.bottom_up = backbone
        self.head = nn.Conv2d(8, 4, 1)


class Pair(nn.Module):
    """The same network twice."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = empty(), empty()


def refused(model: nn.Module, path: Path, error: type[Exception] = CheckpointMatchError, **kwargs: Any) -> Any:
    """The error of a load; the model is bytewise as it was."""
    before = snapshot(model)
    with pytest.raises(error) as caught:
        load_checkpoint(model, path, **kwargs)
    assert snapshot(model) == before
    assert isinstance(caught.value, ValueError)
    if error is CheckpointMatchError:
        assert isinstance(caught.value, CheckpointError)
        assert str(path) in str(caught.value)
    return caught.value


def save(tmp_path: Path, state: Mapping[str, Any], name: str = "changed.pth") -> Path:
    """The path of a torch file."""
    path = tmp_path / name
    torch.save(state, path)
    return path
