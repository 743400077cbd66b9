"""torchvision's DenseNet, as its published files name it: of before dots in modules' names were forbidden.

Read off `torchvision.models.densenet`, which renames them. torchvision's and timm's networks have the names without
the dot: `norm.1` is `norm1`.
"""

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair
from detrex_backbones.checkpoint.names.conventions._detr import BATCH_COUNTERS
from detrex_backbones.checkpoint.names.conventions._resnet import RGB

LAYER = "features.denseblock{s}.denselayer{i}."

CONVENTION = Convention(
    name="torchvision-densenet",
    aliases=("torchvision",),
    anchors=(("features.denseblock1.denselayer1.norm.1.weight", "features.conv0.weight"),),
    pairs=tuple(Pair(f"{LAYER}{part}.{{k}}.{{leaf}}", f"{LAYER}{part}{{k}}.{{leaf}}") for part in ("norm", "conv")),
    others_same=True,
    left_out={r"^classifier\.": "head", **BATCH_COUNTERS},
    suggests=RGB,
)
