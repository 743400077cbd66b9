"""detectron2's ResNet: this library's own names, with what detectron2's tools leave beside them.

Read off `detectron2.modeling.backbone.resnet`; `stem.fc` is what its converter makes of torchvision's classifier. In a
C4 detector res5 belongs to the heads.
"""

from detrex_backbones.checkpoint.names.conventions._convention import Convention

CONVENTION = Convention(
    name="detectron2",
    anchors=(("res2.0.conv1.weight", "stem.conv1.weight"),),
    left_out={
        r"^(stem\.fc|linear)\.": "head",
        r"\.num_batches_tracked$": "batch counter",
        r"^pixel_(mean|std)$": "preprocessing, which the config holds",
    },
    elsewhere={"roi_heads.res5.": "res5."},
    lookalikes="detectron2's MSRA weights (stride_in_1x1=True, BGR) and those converted from torchvision "
    "(stride_in_1x1=False, RGB) have the same names and shapes, and so has TridentNet (three branches of dilated "
    "convolutions)",
    others=("torchvision",),
)
