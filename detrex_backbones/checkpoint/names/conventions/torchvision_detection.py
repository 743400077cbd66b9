"""torchvision's Faster, Mask and Keypoint R-CNN and its RetinaNet over a ResNet with an FPN.

Read off `torchvision.models.detection`. The detector is torchvision's in both; ours holds a `TorchvisionFPN` over this
library's ResNet. Files of before torchvision 0.13, as most published ones are, have one level less in a layer's name.
"""

from detrex_backbones.checkpoint.names.conventions import torchvision
from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair
from detrex_backbones.checkpoint.names.conventions._detr import BATCH_COUNTERS
from detrex_backbones.checkpoint.names.conventions._resnet import RGB

FIRST = "backbone.body.layer1.0.conv1.weight"
PYRAMID = ("inner_blocks", "layer_blocks")
# A head's layers, and how far apart their numbers were: there was an activation between any two.
HEADS = ("head.classification_head.conv", "head.regression_head.conv")
STEP = 2
LAYERS = 4

CONVENTION = Convention(
    name="torchvision-detection",
    anchors=((FIRST, "backbone.fpn.inner_blocks.0.0.weight"), (FIRST, "backbone.fpn.inner_blocks.0.weight")),
    pairs=(
        *(
            Pair(
                f"backbone.body.{pair.theirs}",
                f"backbone.bottom_up.{pair.ours}",
                pair.rank,
                tuple(f"backbone.body.{name}" for name in pair.also),
            )
            for pair in torchvision.CONVENTION.pairs
            if pair is not torchvision.HEAD
        ),
        Pair("backbone.fpn.extra_blocks.p{k}.{leaf}", "backbone.top_block.p{k}.{leaf}"),
        *(
            Pair("", f"backbone.fpn.{part}.{{s}}.0.{{leaf}}", None, (f"backbone.fpn.{part}.{{s}}.{{leaf}}",))
            for part in PYRAMID
        ),
        Pair("", "rpn.head.conv.0.0.{leaf}", None, ("rpn.head.conv.{leaf}",)),
        *(
            Pair("", f"{head}.{index}.0.{{leaf}}", None, (f"{head}.{STEP * index}.{{leaf}}",))
            for head in HEADS
            for index in range(LAYERS)
        ),
    ),
    others_same=True,
    left_out=BATCH_COUNTERS,
    suggests=RGB,
)
