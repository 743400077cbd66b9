"""torchvision's ResNet under torchvision's names: the backbone of detrex's DC5 models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from detrex_backbones.backbones.base import Backbone, check_batch, check_names, first_channels
from detrex_backbones.backbones.recompute import check_stages, run_recomputed
from detrex_backbones.errors import ArgumentError, closest
from detrex_backbones.layers import FrozenBatchNorm2d

__all__ = ["TorchvisionResNet"]

STRIDES = {"layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}
FAMILIES = ("resnet", "resnext", "wide_resnet")


class TorchvisionResNet(Backbone):
    """A ResNet of torchvision with frozen norms, called `body`. Arguments and parameter names are detrex's.

    For weights in these names, such as those that detrex trains with its `detr_r50_dc5`; for anything else
    `ResNet` does more. Its DC5 is torchvision's kind: `make_stage(res5_dilation=2, dilation_style="torchvision")`.

    Args:
        name: as of `torchvision.models`: "resnet50", "resnext101_32x8d", "wide_resnet50_2".
        train_backbone: whether layer2 to layer4 learn; the stem and layer1 never do.
        return_layers: {layer: name of its map}, of "layer1" to "layer4". None: {"layer4": "res5"}.
        dilation: whether layer4 is dilated in the place of its stride (DC5).
        checkpoint_stages: the layers whose activations are not kept for the backward pass but computed again in it
            (Chen et al. 2016): True for layer1 to layer4, or names.

    Attributes:
        num_channels: channels of the last layer's map.

    Raises:
        ArgumentError: another network or layer, two maps of one name, dilation of a network of basic blocks.
    """

    def __init__(
        self,
        name: str,
        train_backbone: bool,
        return_layers: Mapping[str, str] | None = None,
        dilation: bool = False,
        *,
        checkpoint_stages: bool | Sequence[str] = False,
    ) -> None:
        super().__init__()
        layers = _check_layers({"layer4": "res5"} if return_layers is None else {**return_layers})
        net = _create(name, dilation)
        for key, parameter in net.named_parameters():
            parameter.requires_grad_(train_backbone and key.startswith(("layer2", "layer3", "layer4")))
        self.num_channels: int = net.fc.in_features
        self._names = {layer: layers[layer] for layer in STRIDES if layer in layers}
        self.body = nn.Sequential()
        for key, child in net.named_children():
            self.body.add_module(key, child)
            if key == list(self._names)[-1]:  # what follows is never asked for
                break
        self.checkpoint_stages = check_stages(checkpoint_stages, [key for key in STRIDES if hasattr(self.body, key)])
        strides = {**STRIDES, "layer4": 16} if dilation else STRIDES
        self._set_maps(
            {name: (_channels(self.body.get_submodule(layer)), strides[layer]) for layer, name in self._names.items()}
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W) -> {name: map (N, C, ceil(H / stride), ceil(W / stride))}."""
        check_batch(x, first_channels(self.body, None))
        maps = {}
        recomputed = self.checkpoint_stages if torch.is_grad_enabled() else ()
        for key, layer in self.body.named_children():
            x = run_recomputed(layer, x) if key in recomputed else layer(x)
            if key in self._names:
                maps[self._names[key]] = x
        return maps


def _check_layers(layers: dict[str, str]) -> dict[str, str]:
    check_names("return_layers", list(layers), STRIDES)
    if len(set(layers.values())) != len(layers):
        raise ArgumentError(f"return_layers={layers!r}: no two maps of one name.")
    return layers


def _channels(layer: nn.Module) -> int:
    norms: list[Any] = [module for module in layer.modules() if isinstance(module, FrozenBatchNorm2d)]
    return int(norms[-1].num_features)  # of the last block, which has no shortcut


def _create(name: str, dilation: bool) -> Any:
    names = [one for one in torchvision.models.list_models(module=torchvision.models) if one.startswith(FAMILIES)]
    if name not in names:
        raise ArgumentError(
            f"name={name!r} is no ResNet of torchvision {torchvision.__version__}.{closest(str(name), names)} "
            f"Allowed: {', '.join(names)}."
        )
    try:
        return torchvision.models.get_model(
            name, replace_stride_with_dilation=[False, False, dilation], norm_layer=FrozenBatchNorm2d
        )
    except NotImplementedError as error:
        raise ArgumentError(
            f"dilation=True: torchvision's {name} is made of basic blocks, which it doesn't dilate. "
            f"ResNet does: make_stage({name.removeprefix('resnet')}, res5_dilation=2, dilation_style='torchvision')."
        ) from error
