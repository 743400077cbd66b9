"""From a depth and a few widths to the blocks of a ResNet's four stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from detrex_backbones.backbones.resnet.blocks import BasicBlock, BottleneckBlock, CNNBlockBase
from detrex_backbones.errors import ArgumentError
from detrex_backbones.kinds import check_flag, kinds_checked
from detrex_backbones.layers.norm import Norm

__all__ = ["make_block_stage", "make_default_stages", "make_stage"]

# Blocks in res2, res3, res4 and res5 (He et al. 2016, table 1).
NUM_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
BASIC_DEPTHS = (18, 34)

DILATION_STYLES = ("detectron2", "torchvision")

MakeBlock: TypeAlias = Callable[..., CNNBlockBase]  # a block class, or one whose arguments are given in part


def make_block_stage(
    block_class: MakeBlock, num_blocks: int, *, in_channels: int, out_channels: int, **kwargs: Any
) -> list[CNNBlockBase]:
    """The blocks of ONE stage, of any block class: what detectron2 calls `ResNet.make_stage`, with its arguments.

    Not to be confused with the function `make_stage`, which is detrex's: that takes a depth and makes all FOUR stages.

    Args:
        block_class: makes one block; takes `in_channels`, `out_channels` and what `kwargs` hold.
        num_blocks: how many.
        in_channels: C of the stage's input (N, C, H, W).
        out_channels: C of every block's output.
        **kwargs: arguments of every block. `name_per_block=[...]` gives each block a `name` of its own.

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


@kinds_checked
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
    project_res2: bool = False,
) -> list[list[CNNBlockBase]]:
    """All FOUR stages of a ResNet or one of its descendants. Arguments are those of detrex's `make_stage`, and more.

    Not to be confused with the static method `ResNet.make_stage`, which is detectron2's: that takes a block class and
    makes ONE stage. detectron2's way to all four is `ResNet.make_default_stages`.

    With the stem (`BasicStem`, or `DeepStem` of 64 or 128 channels) they make: ResNet, ResNeXt (Xie et al. 2017) and
    wide ResNet; ResNet-C and S (`DeepStem`); ResNet-D and E (`DeepStem` and `shortcut="avg_pool"`, He et al. 2019);
    SE-ResNeXt (`se_reduction=16`); SENet-154 (all of it, Hu et al. 2018).

    Args:
        depth: 18, 34 (basic blocks), 50, 101 or 152 (bottleneck blocks).
        norm: the norm after every convolution, see `get_norm`.
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
        project_res2: whether res2 of depths 18 and 34 has a projection in its first block, too, though it keeps its
            shape: the ResNet-18 and 34 of RT-DETR do.

    Raises:
        ArgumentError: for a depth, dilation, style, width, shortcut or reduction that isn't possible.
    """
    blocks: list[MakeBlock] = [_default_block(depth)] * 4
    listed = isinstance(deform_on_per_stage, Sequence) and not isinstance(deform_on_per_stage, str)
    deform = [check_flag("deform_on_per_stage", flag) for flag in deform_on_per_stage] if listed else []
    if len(deform) != 4:
        raise ArgumentError(
            f"deform_on_per_stage={deform_on_per_stage!r} is no list of four: True or False for res2, res3, res4, res5."
        )
    arguments: dict[str, Any] = {"norm": norm, "se_reduction": se_reduction, "shortcut": shortcut}
    if depth in BASIC_DEPTHS:
        arguments["project_res2"] = project_res2
        _check_basic(depth, num_groups, width_per_group, out_channels, deform, reduce_first)
    else:
        arguments |= {"num_groups": num_groups, "stride_in_1x1": stride_in_1x1, "reduce_first": reduce_first}
    if any(deform):
        # Here, so that only networks with deformable stages import torchvision.
        from detrex_backbones.backbones.resnet.deform_block import DeformBottleneckBlock

        deformable = partial(
            DeformBottleneckBlock, deform_modulated=deform_modulated, deform_num_groups=deform_num_groups
        )
        blocks = [deformable if flag else BottleneckBlock for flag in deform]
    widths = out_channels, num_groups * width_per_group
    return _make_all_stages(
        depth, blocks, arguments, in_channels, widths, _geometry(depth, res5_dilation, dilation_style)
    )


def make_default_stages(
    depth: int,
    block_class: type[CNNBlockBase] | None = None,
    *,
    in_channels: int = 64,
    res5_dilation: int = 1,
    dilation_style: str = "detectron2",
    **kwargs: Any,
) -> list[list[CNNBlockBase]]:
    """All FOUR stages of a standard ResNet. Arguments are those of detectron2's `ResNet.make_default_stages`.

    The static method `ResNet.make_stage` makes ONE stage; the function `make_stage`, which is detrex's, makes all four
    like this one, and knows other widths and deformable stages.

    Args:
        depth: 18, 34, 50, 101 or 152.
        block_class: makes one block; None: `BasicBlock` below 50, otherwise `BottleneckBlock`. Must take
            `bottleneck_channels` from depth 50 on.
        in_channels: as of `make_stage`.
        res5_dilation: as of `make_stage`.
        dilation_style: as of `make_stage`.
        **kwargs: arguments of every block: `norm`, `num_groups`, `stride_in_1x1`, `se_reduction` and so on, but neither
            stride nor channels. `shortcut` means what it does in `make_stage`.

    Raises:
        ArgumentError: for a depth, dilation or style that isn't possible.
    """
    default = _default_block(depth)
    blocks = [block_class or default] * 4
    return _make_all_stages(
        depth, blocks, kwargs, in_channels, (None, 64), _geometry(depth, res5_dilation, dilation_style)
    )


def _make_all_stages(
    depth: int,
    blocks: Sequence[MakeBlock],
    arguments: dict[str, Any],
    in_channels: int,
    widths: tuple[int | None, int],
    geometry: Sequence[dict[str, Any]],
) -> list[list[CNNBlockBase]]:
    """The one loop over res2 to res5. `widths`: channels of res2 (None: as published) and of its 3x3 convolutions."""
    basic = depth in BASIC_DEPTHS
    width = widths[0] if widths[0] is not None else 64 if basic else 256
    stages = []
    for index, block_class in enumerate(blocks):
        own = dict(arguments) if basic else {**arguments, "bottleneck_channels": widths[1] << index}
        if own.pop("project_res2", False) and index == 0:
            own["project_per_block"] = [True, *[False] * (NUM_BLOCKS[depth][0] - 1)]
        if index == 0 and own.get("shortcut") == "conv3x3":
            # SENet-154. Asked of the stage, not of the stride: where DC5 takes res5's stride away, its weights are 3x3.
            own["shortcut"] = "conv1x1"
        channels: dict[str, Any] = {"in_channels": in_channels, "out_channels": width << index}
        stages.append(make_block_stage(block_class, NUM_BLOCKS[depth][index], **channels, **own, **geometry[index]))
        in_channels = width << index
    return stages


def _default_block(depth: int) -> type[CNNBlockBase]:
    if depth not in NUM_BLOCKS:
        raise ArgumentError(f"depth={depth!r} is not a ResNet. Allowed: {', '.join(map(str, NUM_BLOCKS))}.")
    return BasicBlock if depth in BASIC_DEPTHS else BottleneckBlock


def _geometry(depth: int, res5_dilation: int, dilation_style: str) -> list[dict[str, Any]]:
    """Stride and, where any is asked for, dilation of every block of every stage."""
    if res5_dilation not in (1, 2):
        raise ArgumentError(f"res5_dilation={res5_dilation!r} is not allowed: 1 (stride 32) or 2 (DC5, stride 16).")
    if dilation_style not in DILATION_STYLES:
        raise ArgumentError(
            f"dilation_style={dilation_style!r} is not known. Allowed: 'detectron2' (every block of res5 is dilated) "
            f"or 'torchvision' (the first block of res5 is not; DETR-DC5's weights want this one)."
        )
    stages = []
    for index, count in enumerate(NUM_BLOCKS[depth]):
        dilated = index == 3 and res5_dilation > 1
        dilations = [res5_dilation if dilated else 1] * count
        if dilated and dilation_style == "torchvision":
            dilations[0] = 1
        strides = [1 if index == 0 or dilated else 2] + [1] * (count - 1)
        # A user's own block need not know dilation, as long as none is asked for.
        own = {"stride_per_block": strides}
        stages.append(own if res5_dilation == 1 else own | {"dilation_per_block": dilations})
    return stages


def _check_basic(
    depth: int,
    num_groups: int,
    width_per_group: int,
    out_channels: int | None,
    deform: Sequence[bool],
    reduce_first: int,
) -> None:
    """The basic blocks of ResNet-18 and 34 have no groups, no widths and no deformable form."""
    for name, value, allowed in (
        ("out_channels", 64 if out_channels is None else out_channels, 64),
        ("num_groups", num_groups, 1),
        ("width_per_group", width_per_group, 64),
        ("reduce_first", reduce_first, 1),
        ("deform_on_per_stage", [bool(flag) for flag in deform], [False] * 4),
    ):
        if value != allowed:
            raise ArgumentError(
                f"{name}={value!r} does not go with depth={depth}, whose basic blocks allow only {allowed}. "
                f"Depths 50, 101 and 152 have bottleneck blocks."
            )
