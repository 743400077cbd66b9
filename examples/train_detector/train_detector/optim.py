"""Which parameters learn how fast, and when: groups, warm-up, and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from detrex_backbones.errors import ArgumentError

__all__ = ["AveragedWeights", "WarmupCosine", "param_groups"]


def param_groups(
    model: nn.Module, backbone_factor: float = 0.1, weight_decay: float = 0.05, backbone: str = "backbone.bottom_up"
) -> list[dict[str, Any]]:
    """Groups for an optimizer: the backbone's rate times a factor; no decay for biases and norms.

    Args:
        model: the detector. Parameters without gradients are left out.
        backbone_factor: the backbone's learning rate, as a share of the others'.
        weight_decay: of the weights of convolutions and linear layers, whose dimension is 2 or more.
        backbone: path of the network in the model. Where it isn't there (a ViT's pyramid has it as `net`), all that is
            below "backbone" counts.

    Returns:
        Up to four groups with `name`, `params`, `lr_factor` and `weight_decay`.

    Raises:
        ArgumentError: a factor below 0, or nothing to learn.
    """
    if backbone_factor < 0 or weight_decay < 0:
        raise ArgumentError(
            f"optimizer.params: backbone_factor={backbone_factor} and weight_decay={weight_decay} must be at least 0."
        )
    names = dict(model.named_modules())
    scope = backbone if backbone in names else backbone.partition(".")[0]
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        below, decays = name.startswith(f"{scope}."), parameter.dim() > 1
        key = ("backbone" if below else "rest") + ("" if decays else ", no decay")
        factor, decay = (backbone_factor if below else 1.0), (weight_decay if decays else 0.0)
        group = groups.setdefault(key, {"name": key, "params": [], "lr_factor": factor, "weight_decay": decay})
        group["params"].append(parameter)
    if not groups:
        raise ArgumentError("the model has no parameters that learn.")
    return list(groups.values())


@dataclass(frozen=True)
class WarmupCosine:
    """The learning rate's factor at a step: a line from 0 up to 1, then half a cosine down to `last`.

    Args:
        steps: of the whole run.
        warmup: how many of them go up.
        last: the factor at the end.

    Raises:
        ArgumentError: a warm-up that is longer than the run, or a factor outside 0 to 1.
    """

    steps: int
    warmup: int = 0
    last: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup <= self.steps:
            raise ArgumentError(f"schedule.warmup={self.warmup} must be between 0 and train.steps={self.steps}.")
        if not 0 <= self.last <= 1:
            raise ArgumentError(f"schedule.last={self.last} is a share of the learning rate: 0 to 1.")

    def __call__(self, step: int) -> float:
        """The factor of step 0, 1, ..."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.last + (1 - self.last) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


class AveragedWeights:
    """An exponential moving average of a model's parameters, with its buffers as they are.

    Early on it forgets faster, `(1 + updates) / (10 + updates)`, so that the first random weights don't stay in it.

    Args:
        model: whose weights; sharded ones are averaged shard by shard.
        decay: how much of the average stays at each update, 0 to 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ArgumentError(f"train.ema={decay} is the share that stays at each step: at least 0 and below 1.")
        self.model, self.decay, self.updates = model, decay, 0
        self.averages = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the model's weights in; after each step of the optimizer."""
        self.updates += 1
        kept = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in self.model.named_parameters():
            self.averages[name].lerp_(parameter.detach(), 1 - kept)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's weights and the averages; twice is as before."""
        for name, parameter in self.model.named_parameters():
            current = parameter.detach().clone()
            parameter.copy_(self.averages[name])
            self.averages[name].copy_(current)

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Name -> average of each parameter."""
        yield from self.averages.items()
