"""From a depth and a few widths to the blocks of a ResNet's four stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detrex_backbones.backbones.resnet.blocks import BasicBlock, BottleneckBlock, CNNBlockBase
from detrex_backbones.errors import ArgumentError
from detrex_backbones.layers.norm import Norm

__all__ = ["make_block_stage", "make_default_stages", "make_stage"]

# Blocks in res2, res3, res4 and res5 (He et al. 2016, table 1).
NUM_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
BASIC_DEPTHS = (18, 34)

DILATION_STYLES = ("detectron2", "torchvision")


def make_block_stage(
    block_class: type[CNNBlockBase], num_blocks: int, *, in_channels: int, out_channels: int, **kwargs: Any
) -> list[CNNBlockBase]:
    """The blocks of one stage. Arguments are those of detectron2's `ResNet.make_stage`.

    Args:
        block_class: makes one block; takes `in_channels`, `out_channels` and what `kwargs` hold.
        num_blocks: how many.
        in_channels: C of the stage's input (N, C, H, W).
        out_channels: C of every block's output.
        **kwargs: for every block. `name_per_block=[...]` gives each block a `name` of its own.

    Raises:
        ArgumentError: a `_per_block` list of another length, or a name given both ways.
    """
    for name, values in kwargs.items():
        single = name.removesuffix("_per_block")
        if single == name:
            continue
        if single in kwargs:
            raise ArgumentError(f"a stage takes either {name!r} or {single!r}, not both.")
        if len(values) != num_blocks:
            raise ArgumentError(f"{name}={list(values)!r} has {len(values)} entries for num_blocks={num_blocks}.")
    blocks = []
    for index in range(num_blocks):
        own = {
            name.removesuffix("_per_block"): values[index] if name.endswith("_per_block") else values
            for name, values in kwargs.items()
        }
        blocks.append(block_class(in_channels=in_channels, out_channels=out_channels, **own))
        in_channels = out_channels
    return blocks


def make_stage(
    depth: int = 50,
    norm: Norm = "FrozenBN",
    num_groups: int = 1,
    width_per_group: int = 64,
    in_channels: int = 64,
    out_channels: int | None = None,
    stride_in_1x1: bool = False,
    res5_dilation: int = 1,
    deform_on_per_stage: Sequence[bool] = (False, False, False, False),
    deform_modulated: bool = False,
    deform_num_groups: int = 1,
    *,
    dilation_style: str = "detectron2",
    reduce_first: int = 1,
    shortcut: str = "conv1x1",
    se_reduction: int | None = None,
) -> list[list[CNNBlockBase]]:
    """All four stages of a ResNet or one of its descendants. Arguments are those of detrex's `make_stage`, and more.

    With the stem (`BasicStem`, or `DeepStem` of 64 or 128 channels) they make: ResNet, ResNeXt (Xie et al. 2017) and
    wide ResNet; ResNet-C and S (`DeepStem`); ResNet-D and E (`DeepStem` and `shortcut="avg_pool"`, He et al. 2019);
    SE-ResNeXt (`se_reduction=16`); SENet-154 (all of it, Hu et al. 2018).

    Args:
        depth: 18, 34 (basic blocks), 50, 101 or 152 (bottleneck blocks).
        norm: after every convolution, see `get_norm`.
        num_groups: groups of the 3x3 convolutions (ResNeXt: 32 or 64).
        width_per_group: channels of a group in res2; doubled from stage to stage. ResNeXt 32x8d: 8, wide ResNet: 128.
        in_channels: channels that the stem gives, its `out_channels`.
        out_channels: channels of res2; doubled from stage to stage. None: 64 for depths 18 and 34, otherwise 256.
        stride_in_1x1: where bottleneck blocks have their stride, see `BottleneckBlock`.
        res5_dilation: 2 for DC5: res5 keeps res4's resolution and dilates its 3x3 convolutions instead.
        deform_on_per_stage: which of res2 to res5 have deformable 3x3 convolutions.
        deform_modulated: see `DeformBottleneckBlock`.
        deform_num_groups: see `DeformBottleneckBlock`.
        dilation_style: which DC5. "detectron2" dilates every block of res5; "torchvision" (and so DETR-DC5's weights)
            leaves res5's first block with the dilation of res4. Shapes are the same, outputs are not.
        reduce_first: 2 halves the first 1x1 convolution of bottleneck blocks (SENet-154).
        shortcut: the projection in the first block of a stage, see `make_shortcut`: "conv1x1"; "avg_pool" (ResNet-D
            and E); or "conv3x3" (SENet-154), which leaves res2, where nothing gets smaller, its 1x1 convolution. With
            DC5, "avg_pool" has nothing to pool in res5, and res5's "conv3x3" has the dilation of its block.
        se_reduction: 16 adds a `SqueezeExcitation` to every block (SE-ResNet, SE-ResNeXt, SENet-154); None: none.

    Raises:
        ArgumentError: for a depth, dilation, style, width, shortcut or reduction that isn't possible.
    """
    num_blocks = _num_blocks(depth)
    deform = _deform_flags(deform_on_per_stage)
    basic = depth in BASIC_DEPTHS
    if basic:
        _check_basic(depth, num_groups, width_per_group, out_channels, deform, reduce_first)
    width = out_channels if out_channels is not None else 64 if basic else 256
    bottleneck = {"num_groups": num_groups, "stride_in_1x1": stride_in_1x1, "reduce_first": reduce_first}
    stages = []
    for index, geometry in enumerate(_geometry(num_blocks, res5_dilation, dilation_style)):
        block_class: type[CNNBlockBase] = BasicBlock if basic else BottleneckBlock
        kwargs: dict[str, Any] = {"norm": norm, "se_reduction": se_reduction, **geometry}
        kwargs["shortcut"] = _shortcut(shortcut, index)
        if not basic:
            kwargs |= {"bottleneck_channels": num_groups * width_per_group << index, **bottleneck}
        if deform[index]:
            # Here, so that only networks with deformable stages import torchvision.
            from detrex_backbones.backbones.resnet.deform_block import DeformBottleneckBlock

            block_class = DeformBottleneckBlock
            kwargs |= {"deform_modulated": deform_modulated, "deform_num_groups": deform_num_groups}
        stages.append(
            make_block_stage(
                block_class, num_blocks[index], in_channels=in_channels, out_channels=width << index, **kwargs
            )
        )
        in_channels = width << index
    return stages


def make_default_stages(
    depth: int,
    block_class: type[CNNBlockBase] | None = None,
    *,
    in_channels: int = 64,
    res5_dilation: int = 1,
    dilation_style: str = "detectron2",
    **kwargs: Any,
) -> list[list[CNNBlockBase]]:
    """All four stages of a standard ResNet. Arguments are those of detectron2's `ResNet.make_default_stages`.

    Args:
        depth: 18, 34, 50, 101 or 152.
        block_class: makes one block; None: `BasicBlock` below 50, otherwise `BottleneckBlock`. Must take
            `bottleneck_channels` from depth 50 on.
        in_channels: as of `make_stage`.
        res5_dilation: as of `make_stage`.
        dilation_style: as of `make_stage`.
        **kwargs: for every block: `norm`, `num_groups`, `stride_in_1x1`, `se_reduction` and so on, but neither stride
            nor channels. `shortcut` means what it does in `make_stage`.

    Raises:
        ArgumentError: for a depth, dilation or style that isn't possible.
    """
    num_blocks = _num_blocks(depth)
    basic = depth in BASIC_DEPTHS
    width = 64 if basic else 256
    stages = []
    for index, geometry in enumerate(_geometry(num_blocks, res5_dilation, dilation_style)):
        # A user's own block need not know dilation, as long as none is asked for.
        if res5_dilation == 1:
            geometry = {"stride_per_block": geometry["stride_per_block"]}
        own = kwargs if basic else {**kwargs, "bottleneck_channels": 64 << index}
        if "shortcut" in own:
            own = {**own, "shortcut": _shortcut(own["shortcut"], index)}
        block = block_class or (BasicBlock if basic else BottleneckBlock)
        stages.append(
            make_block_stage(
                block, num_blocks[index], in_channels=in_channels, out_channels=width << index, **own, **geometry
            )
        )
        in_channels = width << index
    return stages


def _num_blocks(depth: int) -> tuple[int, ...]:
    if depth not in NUM_BLOCKS:
        raise ArgumentError(f"depth={depth!r} is not a ResNet. Allowed: {', '.join(map(str, NUM_BLOCKS))}.")
    return NUM_BLOCKS[depth]


def _deform_flags(deform_on_per_stage: Sequence[bool]) -> list[bool]:
    flags = list(deform_on_per_stage)
    if len(flags) != 4:
        raise ArgumentError(
            f"deform_on_per_stage={flags!r} has {len(flags)} entries. It takes four: for res2, res3, res4 and res5."
        )
    return flags


def _geometry(num_blocks: Sequence[int], res5_dilation: int, dilation_style: str) -> list[dict[str, list[int]]]:
    """Stride and dilation of every block of every stage."""
    if res5_dilation not in (1, 2):
        raise ArgumentError(f"res5_dilation={res5_dilation!r} is not allowed: 1 (stride 32) or 2 (DC5, stride 16).")
    if dilation_style not in DILATION_STYLES:
        raise ArgumentError(
            f"dilation_style={dilation_style!r} is not known. Allowed: 'detectron2' (every block of res5 is dilated) "
            f"or 'torchvision' (the first block of res5 is not; DETR-DC5's weights want this one)."
        )
    stages = []
    for index, count in enumerate(num_blocks):
        dilated = index == 3 and res5_dilation > 1
        dilations = [res5_dilation if dilated else 1] * count
        if dilated and dilation_style == "torchvision":
            dilations[0] = 1
        strides = [1 if index == 0 or dilated else 2] + [1] * (count - 1)
        stages.append({"stride_per_block": strides, "dilation_per_block": dilations})
    return stages


def _shortcut(shortcut: str, stage: int) -> str:
    # SENet-154. Asked of the stage, not of the stride: where DC5 takes res5's stride away, its 3x3 weights remain.
    return "conv1x1" if stage == 0 and shortcut == "conv3x3" else shortcut


def _check_basic(
    depth: int,
    num_groups: int,
    width_per_group: int,
    out_channels: int | None,
    deform: Sequence[bool],
    reduce_first: int,
) -> None:
    """The basic blocks of ResNet-18 and 34 have no groups, no widths and no deformable form."""
    wrong = {
        "out_channels": (out_channels, out_channels not in (None, 64), "64 (or leave it out)"),
        "num_groups": (num_groups, num_groups != 1, "1"),
        "width_per_group": (width_per_group, width_per_group != 64, "64"),
        "reduce_first": (reduce_first, reduce_first != 1, "1"),
        "deform_on_per_stage": (list(deform), any(deform), "[False, False, False, False]"),
    }
    for name, (given, is_wrong, allowed) in wrong.items():
        if is_wrong:
            raise ArgumentError(
                f"{name}={given!r} does not go with depth={depth}, whose basic blocks allow only {allowed}. "
                f"Depths 50, 101 and 152 have bottleneck blocks."
            )
