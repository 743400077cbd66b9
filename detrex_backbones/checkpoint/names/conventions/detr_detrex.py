"""detrex's own detectors: the names that all tables of the DETR family lead to.

Read off detrex's projects. Its published conversions of the originals lack what the originals lack. Its DC5 models have
torchvision's ResNet, under torchvision's names, as their backbone; everything else is called as in the others.
"""

from detrex_backbones.checkpoint.names.conventions import torchvision
from detrex_backbones.checkpoint.names.conventions._convention import Convention
from detrex_backbones.checkpoint.names.conventions._detr import BATCH_COUNTERS, DC5, KEPT, backbone

MARKS = ("transformer.decoder.layers.0.ffns.0.layers.0.0.weight", "transformer.encoder.layers.0.norms.0.weight")
BODY = "backbone.body.conv1.weight"

DETREX = Convention(name="detrex", anchors=(MARKS,), without=(BODY,), left_out=BATCH_COUNTERS, kept=KEPT)

TORCHVISION_BODY = Convention(
    name="detrex-torchvision",
    anchors=((*MARKS, BODY),),
    pairs=backbone(torchvision.CONVENTION.pairs, "backbone.body."),
    others_same=True,
    left_out=BATCH_COUNTERS,
    kept=KEPT,
    lookalikes=DC5,
)

CONVENTIONS = (DETREX, TORCHVISION_BODY)
