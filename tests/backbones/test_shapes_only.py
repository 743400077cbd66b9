"""Shapes of the meta device beside those of the same layers on the CPU."""

import pytest
import torch
from torch import nn

from detrex_backbones.backbones.shapes_only import shapes_only

LAYERS = {
    "strided": lambda: nn.Conv2d(4, 6, 3, 2, 1),
    "odd sides": lambda: nn.Conv2d(4, 6, (3, 5), (1, 2), (0, 1), (2, 1)),
    "grouped": lambda: nn.Conv2d(4, 8, 3, padding=1, groups=4),
    "padded to the same size": lambda: nn.Conv2d(4, 4, 5, padding="same"),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 3, 2, output_padding=1),
    "pooled": lambda: nn.MaxPool2d(3, 2, 1),
    "pooled, dilated": lambda: nn.MaxPool2d((2, 3), dilation=2),
    "pooled, rounded up": lambda: nn.MaxPool2d(2, 2, ceil_mode=True),
    "in one dimension": lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(4, 3, 5, 3, 1)),
    "normed and added": lambda: nn.Sequential(nn.BatchNorm2d(4), nn.GELU(), nn.GroupNorm(2, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("size", [(8, 8), (13, 10)])
def test_shapes_are_those_of_real_tensors(name, size):
    layer = LAYERS[name]()
    wanted = layer(torch.zeros(2, 4, *size))
    with torch.no_grad(), shapes_only():
        found = layer.to("meta")(torch.empty(2, 4, *size, device="meta"))
    assert found.is_meta and (found.shape, found.dtype) == (wanted.shape, wanted.dtype)


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 4, 5), nn.Conv2d(3, 4, 1), nn.MaxPool2d(5)])
def test_what_cannot_be_run_is_an_error_here_as_well(layer):
    with pytest.raises(RuntimeError):
        layer(torch.zeros(1, 4, 3, 3))
    with pytest.raises(RuntimeError), torch.no_grad(), shapes_only():
        layer.to("meta")(torch.empty(1, 4, 3, 3, device="meta"))
