"""The VGG-16 that SSD runs on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detrex_backbones.backbones.base import Backbone, check_batch, check_names, first_channels
from detrex_backbones.backbones.recompute import check_stages, run_recomputed

__all__ = ["SSDVGG"]

# Channels of the 3x3 convolutions; "pool" halves the map, an odd one rounded up.
LAYERS = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512)

# Map -> index of the ReLU that gives it, channels, stride.
MAPS = {"conv4_3": (22, 512, 8), "fc7": (34, 1024, 16)}


class SSDVGG(Backbone):
    """VGG-16 (Simonyan and Zisserman 2015) as SSD changed it (Liu et al. 2016): fully convolutional, no norms.

    Layers and names (`features.0` to `features.34`) are OpenMMLab's. Beside the classification network: the four
    halving pools round odd sizes up, so that every map has ceil(H / stride) rows; the fifth pool is 3x3 with stride 1;
    fc6 is a 3x3 convolution of dilation 6, fc7 a 1x1 convolution. SSD's L2 normalisation of "conv4_3" and its extra
    layers are no part of it.

    Args:
        in_channels: channels of the image.
        out_features: the maps that `forward` returns, in its order: "conv4_3" (512 channels, stride 8), "fc7" (1024,
            stride 16). Layers behind the last one asked for are left out.
        checkpoint_stages: what is not kept for the backward pass but computed again in it (Chen et al. 2016): True for
            all; or maps, for what lies between each and the map before it.

    Raises:
        ArgumentError: an unknown out_feature, none, or one twice.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_features: Sequence[str] = ("conv4_3", "fc7"),
        *,
        checkpoint_stages: bool | Sequence[str] = False,
    ) -> None:
        super().__init__()
        self._set_maps({name: MAPS[name][1:] for name in check_names("out_features", out_features, MAPS)})
        self.checkpoint_stages = check_stages(checkpoint_stages, self._out_features)
        last = max(MAPS[name][0] for name in self._out_features)
        self.features = nn.Sequential(*_layers(in_channels)[: last + 1])
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, C, H, W) -> {name: map (N, C', ceil(H / stride), ceil(W / stride))}."""
        check_batch(x, first_channels(self.features, None))
        maps = {}
        start = 0
        for end, name in sorted((MAPS[name][0], name) for name in self._out_features):
            layers = self.features[start : end + 1]
            recomputed = name in self.checkpoint_stages and torch.is_grad_enabled()
            x = maps[name] = run_recomputed(layers, x) if recomputed else layers(x)
            start = end + 1
        return {name: maps[name] for name in self._out_features}


def _layers(in_channels: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width in LAYERS:
        if isinstance(width, int):
            layers += [nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU()]
            in_channels = width
        else:
            layers.append(nn.MaxPool2d(2, stride=2, ceil_mode=True))
    layers.append(nn.MaxPool2d(3, stride=1, padding=1))
    layers += [nn.Conv2d(in_channels, 1024, 3, padding=6, dilation=6), nn.ReLU()]
    layers += [nn.Conv2d(1024, 1024, 1), nn.ReLU()]
    return layers
