"""torchvision's MobileNetV3, whose names don't tell whether it was trained in a detector.

Read off `torchvision.models.mobilenetv3` and `torchvision.models.detection`.
"""

from detrex_backbones.checkpoint.names.conventions._convention import Convention

CONVENTION = Convention(
    name="torchvision-mobilenet",
    # Behind `features.` in the classifier, behind `backbone.body.` in a detector.
    anchors=(("1.block.0.0.weight", "0.0.weight", "0.1.weight"),),
    left_out={r"^classifier\.": "head", r"\.num_batches_tracked$": "batch counter"},
    lookalikes="torchvision's Faster R-CNNs over this MobileNetV3 were trained with norm_eps 1e-5, its classifiers and "
    "SSDlite with 1e-3",
)
