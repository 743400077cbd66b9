"""Learning rates that fall from block to block, towards the image: parameter groups for any optimizer."""

from __future__ import annotations

import re

from torch import nn

from detrex_backbones.errors import ArgumentError

__all__ = ["layer_decay_groups"]

# How blocks are called: (stage, block) in Swin, FocalNet, InternImage, ConvNeXt; ResNet; RegNet; (block,) in a ViT.
BLOCKS = (
    re.compile(r"(?:^|\.)(?:layers|levels|stages)[._](\d+)\.(?:blocks\.)?(\d+)\."),
    re.compile(r"(?:^|\.)(?:res|layer)(\d)\.(\d+)\."),
    re.compile(r"(?:^|\.)s(\d)\.b(\d+)\."),
    re.compile(r"(?:^|\.)blocks\.(\d+)\.(?:(\d+)\.)?"),
)
# What makes a stage smaller: behind the stage of that number, or before it.
BEHIND = re.compile(r"(?:^|\.)(?:layers|levels|stages)[._](\d+)\.(?:downsample|norm)\.")
BEFORE = re.compile(r"(?:^|\.)downsample_layers[._](\d+)\.")
# What is new in the detector, inside its backbone: ViTDet's convolutions, DEIMv2's adapter.
NEW = re.compile(r"(?:^|\.)(?:residual|sta)\.")
FIRST = re.compile(r"(?:^|\.)(?:stem|patch_embed|pos_embed|cls_token)(?:[._]|$)|^(?:\w+\.)?(?:conv1|bn1)\.")


def layer_decay_groups(
    model: nn.Module, lr: float, lr_decay_rate: float, *, backbone: str = "backbone"
) -> list[dict[str, object]]:
    """Parameter groups whose learning rate is `lr` in the heads and falls by a factor from block to block below.

        torch.optim.AdamW(layer_decay_groups(detector, lr=1e-4, lr_decay_rate=0.7))

    For a ViT the rates are those of `get_vit_lr_decay_rate` (detectron2's, after BEiT, Bao et al. 2022), without a
    count of blocks to be kept right. In networks of stages (Swin, ConvNeXt, FocalNet, InternImage, ResNet, RegNet)
    each block is a layer, and what makes a map smaller is of the layer beside it in its own stage.

    Args:
        model: a detector, a feature extractor or a backbone.
        lr: learning rate of what is no part of the blocks: heads, neck, pyramid, last norms.
        lr_decay_rate: factor from one block to the one below it; the stem gets it once more than the first block.
        backbone: path of the backbone in the model; "" where the model is one.

    Returns:
        A dict for each rate, the lowest first, with "params", "lr" and "lr_scale" (what `lr` was multiplied with).
        Frozen parameters are in none.

    Raises:
        ArgumentError: there is no such path, a rate that isn't positive, or no block was found behind the path.
    """
    if lr_decay_rate <= 0 or lr <= 0:
        raise ArgumentError(f"lr={lr} and lr_decay_rate={lr_decay_rate}: both must be above 0.")
    try:
        inside = model.get_submodule(backbone)
    except AttributeError as error:
        raise ArgumentError(f"the model has no {backbone!r}. backbone='' takes the model itself for one.") from error
    prefix = f"{backbone}." if backbone else ""
    names = [prefix + name for name, _ in inside.named_parameters()]
    order = sorted({place for name in names if (place := _place(name.removeprefix(prefix))) is not None})
    if not order:
        raise ArgumentError(
            f"no blocks are known in {backbone or 'the model'!r} ({type(inside).__name__}): its parameters are called "
            f"{', '.join(names[:3])} ... A ResNet's are res2.0, Swin's layers.0.blocks.0, a ViT's blocks.0."
        )
    within = set(names)
    groups: dict[int, dict[str, object]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer = _layer(name.removeprefix(prefix), order) if name in within else len(order) + 1
        scale = lr_decay_rate ** (len(order) + 1 - layer)
        group = groups.setdefault(layer, {"params": [], "lr": lr * scale, "lr_scale": scale})
        group["params"].append(parameter)  # type: ignore[attr-defined]
    return [groups[layer] for layer in sorted(groups)]


def _place(name: str) -> tuple[int, int] | None:
    """Stage and block of a parameter; None for one that is in no block."""
    for pattern in BLOCKS:
        match = pattern.search(name)
        if match and not NEW.search(name):
            return int(match[1]), int(match[2] or 0)
    return None


def _layer(name: str, order: list[tuple[int, int]]) -> int:
    place = _place(name)
    if place is not None:
        return order.index(place) + 1
    if NEW.search(name):
        return len(order) + 1
    behind, before = BEHIND.search(name), BEFORE.search(name)
    if behind:
        return max(index for index, (stage, _) in enumerate(order, 1) if stage <= int(behind[1]))
    if before and int(before[1]):
        return min(index for index, (stage, _) in enumerate(order, 1) if stage >= int(before[1]))
    return 0 if before or FIRST.search(name) else len(order) + 1
