"""torchvision's EfficientNet and EfficientNetV2. Ours are timm's names.

Read off `torchvision.models.efficientnet` and `timm.models.efficientnet`.
"""

from __future__ import annotations

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair
from detrex_backbones.checkpoint.names.conventions._parts import pairs_of
from detrex_backbones.checkpoint.names.conventions._resnet import RGB
from detrex_backbones.checkpoint.names.conventions.torchvision_mobilenet import layer, squeeze

FIRST = {**layer("block.0.", "conv_dw", "bn1"), **squeeze("block.1."), **layer("block.2.", "conv_pw", "bn2")}
BLOCK = {
    **layer("block.0.", "conv_pw", "bn1"),
    **layer("block.1.", "conv_dw", "bn2"),
    **squeeze("block.2."),
    **layer("block.3.", "conv_pwl", "bn3"),
}
# Version 2's: the first stage widens nothing, and the next two do it by the spatial convolution.
ONE_LAYER = layer("block.0.", "conv", "bn1")
FUSED = {**layer("block.0.", "conv_exp", "bn1"), **layer("block.1.", "conv_pwl", "bn2")}
SQUEEZED = "features.1.0.block.1.fc1.weight"  # version 1's first block
SUGGESTS = {**RGB, "padding": "symmetric"}


def _whole(first: tuple[dict[str, str], ...], stages: int) -> tuple[Pair, ...]:
    """The names of a network whose first stages have blocks of their own."""
    kinds = [*first, *[BLOCK] * (stages - len(first))]
    return (
        *pairs_of("features.0.", "", layer("", "conv_stem", "bn1")),
        *(
            pair
            for stage, names in enumerate(kinds)
            for pair in pairs_of(f"features.{stage + 1}.{{i}}.", f"blocks.{stage}.{{i}}.", names)
        ),
        *pairs_of(f"features.{stages + 1}.", "", layer("", "conv_head", "bn2")),
        Pair("classifier.1.{leaf}", "classifier.{leaf}"),
    )


CONVENTIONS = tuple(
    Convention(
        name=name,
        aliases=("torchvision",),
        anchors=(
            (f"features.{stages + 1}.0.weight", SQUEEZED if first[0] is FIRST else "features.1.0.block.0.0.weight"),
        ),
        without=() if first[0] is FIRST else (SQUEEZED,),
        pairs=_whole(first, stages),
        left_out={r"^classifier\.": "head", r"\.num_batches_tracked$": "batch counter"},
        suggests=SUGGESTS,
    )
    for name, stages, first in (
        ("torchvision-efficientnet", 7, (FIRST,)),
        ("torchvision-efficientnet-v2-s", 6, (ONE_LAYER, FUSED, FUSED)),
        ("torchvision-efficientnet-v2", 7, (ONE_LAYER, FUSED, FUSED)),
    )
)
