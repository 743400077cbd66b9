"""Any timm model as a detection backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import freeze_batch_norm_2d
from torch import Tensor, nn

from detrex_backbones.backbones.base import Backbone
from detrex_backbones.errors import ArgumentError, CheckpointError, CheckpointFileError, InputError, closest
from detrex_backbones.layers import FrozenBatchNorm2d

__all__ = ["TimmBackbone"]


class TimmBackbone(Backbone):
    """Feature maps of a timm model, named "p0", "p1" and so on after their index. Arguments are detrex's.

    The model is the child `timm_model`, under timm's own parameter names.

    Args:
        model_name: as of `timm.create_model`, with or without the tag of its weights: "resnet152d.gluon_in1k".
        features_only: must be True: the classifier's scores are no feature maps.
        pretrained: load timm's weights for this name, from its cache or the hub.
        checkpoint_path: load a file in timm's names instead, classifier included or not; "" for none.
        in_channels: channels of the image.
        out_indices: which of the model's maps, from 0 (the largest), in the order in which `forward` returns them.
        norm_layer: `FrozenBatchNorm2d` (this library's, torchvision's or detectron2's) or "FrozenBN" freezes every
            BatchNorm2d once the weights are in, with its eps and, where it has one, its activation. Anything else is
            handed to timm. None: the model's own norm.

    Raises:
        ArgumentError: an unknown model, indices that it doesn't have, a norm that it doesn't take.
        CheckpointError: a `checkpoint_path` that is missing or doesn't fit.
    """

    def __init__(
        self,
        model_name: str,
        features_only: bool = True,
        pretrained: bool = False,
        checkpoint_path: str = "",
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        norm_layer: str | Callable[..., nn.Module] | None = None,
    ) -> None:
        super().__init__()
        _check_name(model_name)
        if not features_only:
            raise ArgumentError("features_only=False gives class scores, which are no feature maps. Leave it True.")
        if pretrained and checkpoint_path:
            raise ArgumentError(
                f"pretrained=True and checkpoint_path={checkpoint_path!r} are two sources of weights. Keep one."
            )
        kwargs: dict[str, Any] = {"in_chans": in_channels, "pretrained": pretrained}
        if checkpoint_path:
            _check_file(checkpoint_path)
            # timm loads this into the whole model before it cuts the classifier off; its own
            # `checkpoint_path` comes after the cut, and fails on the classifier's keys.
            kwargs |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(checkpoint_path)}}
        freeze = _is_frozen_norm(norm_layer)
        if norm_layer is not None and not freeze:
            kwargs["norm_layer"] = norm_layer
        indices = _check_indices(model_name, out_indices)
        # timm gives the maps in the order of the network, whatever the order asked for.
        in_order = sorted(indices)
        self.timm_model = _create(model_name, out_indices=in_order, **kwargs)
        if freeze:
            # Ours for plain batch norms; timm's own frozen form for those that also apply an activation.
            self.timm_model = freeze_batch_norm_2d(FrozenBatchNorm2d.convert_frozen_batchnorm(self.timm_model))
        info: Any = self.timm_model.feature_info
        self._channels_last = str(getattr(self.timm_model, "output_fmt", "NCHW")) in ("NHWC", "Format.NHWC")
        self._out_features = [f"p{index}" for index in indices]
        self._timm_order = [f"p{index}" for index in in_order]
        self._out_feature_channels = dict(zip(self._timm_order, info.channels(), strict=True))
        self._out_feature_strides = dict(zip(self._timm_order, info.reduction(), strict=True))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, C, H, W) -> {"p{index}": map (N, C', about H / stride, about W / stride)}."""
        if x.dim() != 4:
            raise InputError(f"a backbone takes a batch of shape (N, C, H, W), not {tuple(x.shape)}.")
        maps = self.timm_model(x)
        if self._channels_last:
            maps = [value.permute(0, 3, 1, 2).contiguous() for value in maps]
        named = dict(zip(self._timm_order, maps, strict=True))
        return {name: named[name] for name in self._out_features}


def _check_name(model_name: str) -> None:
    if not isinstance(model_name, str) or not timm.is_model(model_name):
        names = timm.list_models()
        architecture = str(model_name).partition(".")[0]
        raise ArgumentError(
            f"model_name={model_name!r} is not a model of timm {timm.__version__}.{closest(architecture, names)} "
            f"timm.list_models() has all {len(names)} names."
        )


def _check_file(checkpoint_path: str) -> None:
    path = Path(checkpoint_path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointFileError(f"checkpoint_path={str(path)!r} {what}. Give a file in timm's names, or '' for none.")


def _check_indices(model_name: str, out_indices: Sequence[int]) -> list[int]:
    indices = list(out_indices) if isinstance(out_indices, Iterable) else []
    whole = all(isinstance(index, int) and not isinstance(index, bool) and index >= 0 for index in indices)
    if not indices or not whole or len(set(indices)) != len(indices):
        raise ArgumentError(
            f"out_indices={out_indices!r}: {model_name} has the maps {_all_indices(model_name)}. Choose at least one "
            f"of these, and none of them twice."
        )
    return indices


def _all_indices(model_name: str) -> list[int]:
    with torch.device("meta"):
        return list(range(len(timm.create_model(model_name, features_only=True).feature_info.info)))


def _create(model_name: str, out_indices: list[int], **kwargs: Any) -> nn.Module:
    try:
        model: nn.Module = timm.create_model(model_name, features_only=True, out_indices=out_indices, **kwargs)
        return model
    except Exception as error:
        if isinstance(error, IndexError | AssertionError) and not set(out_indices) <= set(_all_indices(model_name)):
            raise ArgumentError(
                f"out_indices={out_indices!r}: {model_name} has the maps {_all_indices(model_name)}."
            ) from error
        if "norm_layer" in kwargs:
            raise ArgumentError(
                f"timm's {model_name} does not take norm_layer={kwargs['norm_layer']!r} ({error}). Allowed for every "
                f"model: None (its own norm) and FrozenBatchNorm2d or 'FrozenBN' (its batch norms, frozen)."
            ) from error
        if "pretrained_cfg_overlay" in kwargs:
            raise CheckpointError(
                f"timm's {model_name} can't take the weights of checkpoint_path="
                f"{kwargs['pretrained_cfg_overlay']['file']!r}: {type(error).__name__}: {error}"
            ) from error
        given = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
        raise ArgumentError(
            f"timm can't make {model_name!r} with out_indices={out_indices!r}, {given}: {type(error).__name__}: {error}"
        ) from error


def _is_frozen_norm(norm_layer: Any) -> bool:
    return norm_layer == "FrozenBN" or getattr(norm_layer, "__name__", "") == "FrozenBatchNorm2d"
