"""torchvision's MobileNetV2 and MobileNetV3, in classifiers and in detectors. Ours are timm's names, and its own.

Read off `torchvision.models.mobilenetv2`, `mobilenetv3` and `detection`, and `timm.models.efficientnet`. torchvision
counts blocks through all stages. Names of MobileNetV3 don't tell whether it was trained in a detector.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair
from detrex_backbones.checkpoint.names.conventions._parts import pairs_of
from detrex_backbones.checkpoint.names.conventions._resnet import RGB

__all__ = ["layer", "squeeze", "timm_blocks"]

LEFT_OUT = {r"^classifier\.": "head", r"\.num_batches_tracked$": "batch counter"}
TRAINED = (
    "torchvision's Faster R-CNNs over this MobileNetV3 were trained with norm_eps 1e-5, its classifiers and SSDlite "
    "with 1e-3"
)


def layer(theirs: str, conv: str, norm: str) -> dict[str, str]:
    """A convolution and its norm, the first two of a Sequential."""
    return {f"{theirs}0.weight": f"{conv}.weight", f"{theirs}1.": f"{norm}."}


def squeeze(theirs: str) -> dict[str, str]:
    """Squeeze-and-excitation."""
    return {f"{theirs}fc1.": "se.conv_reduce.", f"{theirs}fc2.": "se.conv_expand."}


# Of MobileNetV2: its last convolution and norm have no Sequential of their own.
FIRST = {**layer("conv.0.", "conv_dw", "bn1"), "conv.1.weight": "conv_pw.weight", "conv.2.": "bn2."}
BLOCK = {
    **layer("conv.0.", "conv_pw", "bn1"),
    **layer("conv.1.", "conv_dw", "bn2"),
    "conv.2.weight": "conv_pwl.weight",
    "conv.3.": "bn3.",
}


def timm_blocks(depths: Sequence[int]) -> list[str]:
    """Where timm has each block of stages that are so deep, in the order in which others count them through."""
    return [f"blocks.{stage}.{index}." for stage, depth in enumerate(depths) for index in range(depth)]


def _anchors(first: str, last: str) -> tuple[tuple[str, ...], ...]:
    """In the classifier, and in a detector, which has its `features` under another name."""
    marks = (first, last, "0.0.weight", "0.1.weight")
    return tuple(f"features.{mark}" for mark in marks), marks


def _features(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    """Pairs of what is in `features`, also of what has no such name before it."""
    return tuple(Pair(f"features.{pair.theirs}", pair.ours, pair.rank, (pair.theirs,)) for pair in pairs)


def _v3(depths: Sequence[int], squeezed: str) -> tuple[Pair, ...]:
    """All of a MobileNetV3; `squeezed` has an "s" for each block with squeeze-and-excitation."""
    pairs = [*pairs_of("0.", "", layer("", "conv_stem", "bn1"))]
    for (number, place), kind in zip(enumerate(timm_blocks(depths), 1), squeezed, strict=True):
        names = layer("block.0.", "conv_dw", "bn1") if number == 1 else layer("block.0.", "conv_pw", "bn1")
        names |= {} if number == 1 else layer("block.1.", "conv_dw", "bn2")
        at = 1 + (number > 1)
        names |= squeeze(f"block.{at}.") if kind == "s" else {}
        last = ("conv_pw", "bn2") if number == 1 else ("conv_pwl", "bn3")
        pairs += pairs_of(f"{number}.", place, names | layer(f"block.{at + (kind == 's')}.", *last))
    pairs += pairs_of(f"{len(squeezed) + 1}.", f"blocks.{len(depths)}.0.", layer("", "conv", "bn1"))
    return _features(pairs)


CONVENTIONS = (
    Convention(
        name="torchvision-mobilenet",
        # Behind `features.` in the classifier, behind `backbone.body.` in a detector.
        anchors=(("1.block.0.0.weight", "0.0.weight", "0.1.weight"),),
        left_out=LEFT_OUT,
        lookalikes=TRAINED,
    ),
    Convention(
        name="torchvision-mobilenet-v2",
        aliases=("torchvision",),
        anchors=_anchors("1.conv.0.0.weight", "18.0.weight"),
        pairs=(
            *_features(pairs_of("0.", "", layer("", "conv_stem", "bn1"))),
            *(
                pair
                for number, place in enumerate(timm_blocks((1, 2, 3, 4, 3, 3, 1)), 1)
                for pair in _features(pairs_of(f"{number}.", place, FIRST if number == 1 else BLOCK))
            ),
            *_features(pairs_of("18.", "", layer("", "conv_head", "bn2"))),
            Pair("classifier.1.{leaf}", "classifier.{leaf}"),
        ),
        left_out=LEFT_OUT,
        suggests={**RGB, "padding": "symmetric", "norm_eps": 1e-5},
    ),
    *(
        Convention(
            name=f"torchvision-mobilenet-v3-{size}",
            aliases=("torchvision",),
            anchors=_anchors("1.block.0.0.weight", f"{len(squeezed) + 1}.0.weight"),
            pairs=_v3(depths, squeezed),
            left_out=LEFT_OUT,
            lookalikes=TRAINED,
            suggests={**RGB, "padding": "symmetric"},
        )
        for size, depths, squeezed in (
            ("small", (1, 2, 3, 2, 3), "s--ssssssss"),
            ("large", (1, 2, 3, 4, 2, 3), "---sss----sssss"),
        )
    ),
)
