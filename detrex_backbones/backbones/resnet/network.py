"""The ResNet itself: a stem, stages, and the names of the maps that it gives out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detrex_backbones.backbones.base import Backbone, check_batch, check_names, first_channels
from detrex_backbones.backbones.memory_format import fast_layout
from detrex_backbones.backbones.recompute import check_stages, run_recomputed
from detrex_backbones.backbones.resnet.blocks import CNNBlockBase
from detrex_backbones.backbones.resnet.stages import make_block_stage, make_default_stages
from detrex_backbones.errors import ArgumentError
from detrex_backbones.layers import Conv2d

__all__ = ["ResNet"]


class ResNet(Backbone):
    """Residual network (He et al. 2016). Arguments, parameter names and `freeze_at` are detectron2's.

    Args:
        stem: gives `out_channels` and `stride`; called "stem".
        stages: lists of blocks, called "res2", "res3" and so on. A block has `in_channels`, `out_channels`, `stride`.
        num_classes: adds average pooling and a classifier called "linear"; None for none.
        out_features: the maps that `forward` returns: "stem", "res2" ... "res5", "linear". None: the last one. Stages
            behind the last one asked for are left out, unless there is a classifier.
        freeze_at: how much of the beginning to freeze, see `freeze`.
        checkpoint_stages: the stages whose activations are not kept for the backward pass but computed again in it
            (Chen et al. 2016): True for all, or names: ["res2", "res3"]. Less memory, about a third more time.
        weight_standardization: whether convolutions standardise their weights as they run (Qiao et al. 2019): with
            norm="GN", OpenMMLab's `resnet50_gn_ws`. Deformable ones don't.

    Raises:
        ArgumentError: an unknown out_feature or stage, stages that don't fit together, DC5 that is cut before res5.
    """

    stage_names: tuple[str, ...]

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[Sequence[nn.Module]],
        num_classes: int | None = None,
        out_features: Sequence[str] | None = None,
        freeze_at: int = 0,
        *,
        checkpoint_stages: bool | Sequence[str] = False,
        weight_standardization: bool = False,
    ) -> None:
        super().__init__()
        names = [f"res{index}" for index in range(2, 2 + len(stages))]
        allowed = ["stem", *names] + ([] if num_classes is None else ["linear"])
        hint = " ('linear' needs num_classes)" if "linear" in (out_features or ()) else ""
        self._out_features = check_names(
            "out_features", allowed[-1:] if out_features is None else out_features, allowed, hint
        )
        if num_classes is None:
            last = max((names.index(name) + 1 for name in self._out_features if name in names), default=0)
            _check_cut(stages[last:], self._out_features)
            names = names[:last]
        self.stem = stem
        self.stage_names = tuple(names)
        self.num_classes = num_classes
        self._out_feature_channels = {"stem": int(stem.out_channels)}  # type: ignore[arg-type]
        self._out_feature_strides = {"stem": int(stem.stride)}  # type: ignore[arg-type]
        last_name = "stem"
        for name, blocks in zip(names, stages, strict=False):
            self._add_stage(name, list(blocks), after=last_name)
            last_name = name
        if num_classes is not None:
            self._add_classifier(num_classes, after=last_name)
        self.checkpoint_stages = check_stages(checkpoint_stages, names)
        for module in self.modules() if weight_standardization else ():
            if isinstance(module, Conv2d):
                module.weight_standardization = True
        self.freeze(freeze_at)

    def _add_stage(self, name: str, blocks: list[nn.Module], after: str) -> None:
        channels: Any = self._out_feature_channels[after]
        for index, block in enumerate(blocks):
            missing = [key for key in ("in_channels", "out_channels", "stride") if not hasattr(block, key)]
            if missing:
                raise ArgumentError(f"block {index} of {name} is a {type(block).__name__} without {missing}.")
            if block.in_channels != channels:
                raise ArgumentError(
                    f"block {index} of {name} takes {block.in_channels} channels but is given {channels} by "
                    f"{after if index == 0 else f'block {index - 1}'}. Set in_channels of the stages to out_channels "
                    f"of the stem, and each stage's to that of the one before it."
                )
            channels = block.out_channels
        if not blocks:
            raise ArgumentError(f"stage {name} has no blocks.")
        self.add_module(name, nn.Sequential(*blocks))
        self._out_feature_channels[name] = channels
        strides: list[Any] = [block.stride for block in blocks]
        self._out_feature_strides[name] = self._out_feature_strides[after] * math.prod(strides)

    def _add_classifier(self, num_classes: int, after: str) -> None:
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(self._out_feature_channels[after], num_classes)
        # Goyal et al. 2017, section 5.1.
        nn.init.normal_(self.linear.weight, std=0.01)
        # One vector an image: there is no map, so the stride is that of the map it was pooled from.
        self._out_feature_channels["linear"] = num_classes
        self._out_feature_strides["linear"] = self._out_feature_strides[after]

    @property
    def stages(self) -> list[nn.Sequential]:
        """The stages that the network has, from res2 on."""
        return [self.get_submodule(name) for name in self.stage_names]  # type: ignore[misc]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, C, H, W) -> {name: map (N, C', ceil(H / stride), ceil(W / stride))}; "linear" is (N, classes).

        Maps may lie in memory with channels last, see `fast_layout`.
        """
        check_batch(x, first_channels(self.stem, getattr(self.stem, "in_channels", None)))
        outputs = {}
        x = self.stem(fast_layout(x))
        if "stem" in self._out_features:
            outputs["stem"] = x
        for name in self.stage_names:
            stage = getattr(self, name)
            recomputed = name in self.checkpoint_stages and torch.is_grad_enabled()
            x = run_recomputed(stage, x) if recomputed else stage(x)
            if name in self._out_features:
                outputs[name] = x
        if "linear" in self._out_features:
            outputs["linear"] = self.linear(torch.flatten(self.avgpool(x), 1))
        return {name: outputs[name] for name in self._out_features}

    def freeze(self, freeze_at: int = 0) -> ResNet:
        """Freeze the beginning: no gradients there, and its batch norms become `FrozenBatchNorm2d`.

        Args:
            freeze_at: -1 or 0 nothing, 1 the stem, 2 the stem and res2, and so on up to 5: everything but a classifier.

        Raises:
            ArgumentError: for anything else.
        """
        if freeze_at not in range(-1, 6):
            raise ArgumentError(
                f"freeze_at={freeze_at!r} is out of range. Allowed: -1 or 0 (nothing), 1 (the stem), 2 (and res2), "
                f"3 (and res3), 4 (and res4), 5 (and res5)."
            )
        if freeze_at >= 1:
            _freeze([self.stem])
        for number, stage in enumerate(self.stages, start=2):
            if freeze_at >= number:
                _freeze(stage)
        return self

    # As in detectron2, where configs call them through the class.
    make_stage = staticmethod(make_block_stage)
    make_default_stages = staticmethod(make_default_stages)


def _freeze(modules: Iterable[Any]) -> None:
    for module in modules:
        # A block of detectron2 or of the user may know better what freezing it means.
        freeze = getattr(module, "freeze", None)
        freeze() if callable(freeze) else CNNBlockBase.freeze(module)


def _check_cut(dropped: Sequence[Sequence[nn.Module]], out_features: list[str]) -> None:
    if any(getattr(block, "dilation", 1) > 1 for blocks in dropped for block in blocks):
        raise ArgumentError(
            f"the stages are dilated (DC5), but out_features={out_features!r} cuts the network before the dilated one: "
            f"add 'res5' to out_features, or set res5_dilation=1."
        )
