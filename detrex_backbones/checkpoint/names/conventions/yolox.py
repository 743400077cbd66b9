"""YOLOX's CSPDarknet. Ours are OpenMMLab's names, which its own files have as they are.

Read off `yolox.models.darknet` and `network_blocks`. It stands behind `backbone.backbone.`, within the pyramid.
"""

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair
from detrex_backbones.checkpoint.names.conventions._parts import BATCH_COUNTERS, pairs_of

PARTS = ("conv.", "bn.")
STEM = {f"stem.conv.{part}": f"stem.conv.{part}" for part in PARTS}
# A 3x3 convolution, or the two that YOLOX-nano has in its place.
CONV = {"": "", "dconv.": "depthwise_conv.", "pconv.": "pointwise_conv."}
HALVES = {"conv1.": "main_conv.", "conv2.": "short_conv.", "conv3.": "final_conv."}


def _stage(number: int) -> tuple[Pair, ...]:
    theirs, ours = f"dark{number + 1}.", f"stage{number}."
    csp = "2." if number == 4 else "1."  # behind the pooling of the last stage
    names = {f"0.{conv}{part}": f"0.{own}{part}" for conv, own in CONV.items() for part in PARTS}
    names |= {f"{csp}{conv}{part}": f"{csp}{own}{part}" for conv, own in HALVES.items() for part in PARTS}
    if number == 4:
        names |= {f"1.{conv}{part}": f"1.{conv}{part}" for conv in ("conv1.", "conv2.") for part in PARTS}
    names |= {f"{csp}m.{{i}}.conv1.{part}": f"{csp}blocks.{{i}}.conv1.{part}" for part in PARTS}
    for conv, own in CONV.items():
        names |= {f"{csp}m.{{i}}.conv2.{conv}{part}": f"{csp}blocks.{{i}}.conv2.{own}{part}" for part in PARTS}
    return pairs_of(theirs, ours, names)


CONVENTION = Convention(
    name="yolox",
    anchors=(("dark2.1.conv3.conv.weight", "stem.conv.conv.weight"),),
    pairs=(*pairs_of("", "", STEM), *(pair for number in (1, 2, 3, 4) for pair in _stage(number))),
    left_out=BATCH_COUNTERS,
    suggests={"input_format": "BGR", "pixel_mean": [0.0, 0.0, 0.0], "pixel_std": [1.0, 1.0, 1.0]},
)
