"""Batch normalisation whose statistics and affine parameters never change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from detrex_backbones.kinds import kinds_checked

__all__ = ["FrozenBatchNorm2d", "is_frozen_norm"]

# What configs write; ours, detectron2's and torchvision's; timm's, which goes on with an activation.
FROZEN_NAMES = ("FrozenBN", "FrozenBatchNorm2d", "FrozenBatchNorm1d", "FrozenBatchNormAct2d")


def is_frozen_norm(norm: Any) -> bool:
    """Whether a norm, its class, or the name or import path that a config has for it is that of a frozen batch norm.

    Other projects' classes are known by name: none of them is imported for it.
    """
    name = norm if isinstance(norm, str) else getattr(norm, "__name__", type(norm).__name__)
    return str(name).rpartition(".")[2] in FROZEN_NAMES


@kinds_checked
class FrozenBatchNorm2d(nn.Module):
    """BatchNorm2d with fixed statistics and fixed affine parameters.

    `y = (x - running_mean) / sqrt(running_var + eps) * weight + bias` for each channel, in training as in evaluation.
    All four are buffers: they are saved and loaded, and no optimiser sees them. A fresh one is the identity.
    Behaviour and names are detectron2's: one that was made of a trainable norm keeps its `num_batches_tracked`, so
    that a network has the same names frozen and not. A `Conv2d` that trains computes it as a part of its own weights,
    see `fold`.

    Args:
        num_features: channels C of the input (N, C, H, W).
        eps: added to the variance. It belongs to the weights: a network trained with 1e-3 must be frozen with 1e-3.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor | None

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.full((num_features,), 1.0 - eps))
        self.register_buffer("num_batches_tracked", None)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` of shape (N, C, H, W); the result has its shape and dtype."""
        if not x.requires_grad:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        # batch_norm would keep its whole input for a gradient of weight and bias that nobody wants.
        scale, shift = (value.to(x.dtype).reshape(-1, *[1] * (x.dim() - 2)) for value in self.scale_and_shift())
        return torch.addcmul(shift, x, scale)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """What each channel is multiplied by, and what is added then: two of shape (C,), in float32 or better.

        Computed anew from the four buffers, so that they may be changed at any time.
        """
        dtype = torch.promote_types(self.running_var.dtype, torch.float32)
        scale = self.weight * (self.running_var.to(dtype) + self.eps).rsqrt()
        return scale, torch.addcmul(self.bias.to(dtype), self.running_mean.to(dtype), scale, value=-1)

    def fold(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """The weight and bias with which a convolution alone computes convolution and norm (Jacob et al. 2018).

        A pass over the weights takes the place of one over the map. Gradients go through it to `weight` and `bias`.
        Both have the dtype of `weight`; what is between is computed in float32 or better.
        """
        scale, shift = self.scale_and_shift()
        if bias is not None:
            shift = torch.addcmul(shift, bias.to(shift.dtype), scale)
        scaled = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
        return scaled.to(weight.dtype), shift.to(weight.dtype)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # A trainable BatchNorm2d counts its batches; frozen, there is nothing to count, and no file needs to say it.
        counter = prefix + "num_batches_tracked"
        if self.num_batches_tracked is None:
            state_dict.pop(counter, None)
        else:
            state_dict.setdefault(counter, self.num_batches_tracked)
        super()._load_from_state_dict(state_dict, prefix, *args)

    @classmethod
    def convert_frozen_batchnorm(cls, module: nn.Module) -> nn.Module:
        """Replace every BatchNorm1d, BatchNorm2d and SyncBatchNorm by a frozen one with the same eps and values.

        A subclass with a forward of its own is left alone: timm's BatchNormAct2d, for one, also applies the
        activation, and a plain frozen norm in its place would delete that.

        Args:
            module: changed in place; where it is a batch norm itself, the new one is returned instead.

        Returns:
            `module`, or the frozen norm that stands for it.
        """
        if _is_plain_batch_norm(module):
            return cls.copy_of(module)
        return _convert_children(module, cls.convert_frozen_batchnorm)

    @classmethod
    def convert_frozenbatchnorm2d_to_batchnorm2d(cls, module: nn.Module) -> nn.Module:
        """Replace every frozen batch norm in `module` by a trainable one with the same eps and values.

        Args:
            module: changed in place; where it is a frozen norm itself, the new one is returned instead.

        Returns:
            `module`, or the trainable norm that stands for it.
        """
        if isinstance(module, FrozenBatchNorm2d):
            trainable = nn.BatchNorm1d if isinstance(module, FrozenBatchNorm1d) else nn.BatchNorm2d
            norm = trainable(module.num_features, eps=module.eps, device=module.weight.device)
            norm = norm.to(module.weight.dtype).train(module.training)
            _copy_values(module, norm)
            if module.num_batches_tracked is not None:
                norm.num_batches_tracked = module.num_batches_tracked.clone()
            return norm
        return _convert_children(module, cls.convert_frozenbatchnorm2d_to_batchnorm2d)

    @classmethod
    def copy_of(cls, norm: nn.Module) -> FrozenBatchNorm2d:
        """A frozen norm with the eps and the values of a batch norm of any kind; one without values is the identity."""
        like: Any = next((value for value in (norm.running_mean, norm.weight) if value is not None), None)
        kind = FrozenBatchNorm1d if isinstance(norm, nn.BatchNorm1d) else cls
        frozen = kind(norm.num_features if like is None else len(like), eps=norm.eps)  # type: ignore[arg-type]
        if like is not None:
            frozen = frozen.to(device=like.device, dtype=like.dtype)
        frozen.train(norm.training)
        _copy_values(norm, frozen)
        counter = getattr(norm, "num_batches_tracked", None)
        frozen.num_batches_tracked = None if counter is None else counter.clone()
        return frozen


class FrozenBatchNorm1d(FrozenBatchNorm2d):
    """The same for (N, C) and (N, C, L), as timm's LeViT has it behind its linear layers."""


def _convert_children(module: nn.Module, convert: Callable[[nn.Module], nn.Module]) -> nn.Module:
    # Not named_children(): it leaves out the second name of a module that stands under two.
    for name, child in list(module._modules.items()):
        if child is not None:
            setattr(module, name, convert(child))
    return module


def _is_plain_batch_norm(module: nn.Module) -> bool:
    forwards = (_BatchNorm.forward, nn.SyncBatchNorm.forward)
    return isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.SyncBatchNorm) and type(module).forward in forwards


def _copy_values(source: nn.Module, target: nn.Module) -> None:
    """Copy what `source` has of the four tensors; one without affine parameters or statistics leaves the identity."""
    with torch.no_grad():
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = getattr(source, name, None)
            if value is not None and not value.is_meta:
                getattr(target, name).copy_(value)
