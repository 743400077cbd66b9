"""detectron2's ResNet: this library's own names, with what detectron2's tools leave beside them.

Read off `detectron2.modeling.backbone.resnet`; `stem.fc` is what its converter makes of torchvision's classifier.
"""

from detrex_backbones.checkpoint.conventions._convention import Convention

CONVENTION = Convention(
    name="detectron2",
    anchors=("res2.0.conv1.weight", "stem.conv1.weight"),
    rules=(),
    left_out={
        r"^(stem\.fc|linear)\.": "classifier head",
        r"\.num_batches_tracked$": "batch counter",
        r"^pixel_(mean|std)$": "preprocessing, which the config holds",
    },
    stage=r"(^|\.)res[2-5](?=\.)",
)
