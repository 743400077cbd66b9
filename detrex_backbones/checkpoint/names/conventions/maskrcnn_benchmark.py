"""maskrcnn-benchmark's ResNets: torchvision's blocks behind a stem, both behind `backbone.body`.

Read off its `modeling.backbone.resnet` and `layers.misc.DFConv2d`. In a C4 detector the last stage belongs to the
heads. Its weights come from Caffe2: BGR, in numbers from 0 to 255.
"""

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair
from detrex_backbones.checkpoint.names.conventions._resnet import BLOCKS, HEADS, shortcut

CONVENTION = Convention(
    name="maskrcnn-benchmark",
    anchors=(("layer1.0.conv1.weight", "stem.conv1.weight", "stem.bn1.weight"),),
    pairs=(
        Pair("stem.conv1.{leaf}", "stem.conv1.{leaf}"),
        Pair("stem.bn1.{leaf}", "stem.conv1.norm.{leaf}"),
        *BLOCKS[:2],
        *shortcut(0, 1),
        # A deformable convolution is a module of two. Read only: written names would be those of a plain one.
        Pair("", "res{s+1}.{i}.conv2_offset.{leaf}", also=("layer{s}.{i}.conv2.offset.{leaf}",)),
        Pair("", "res{s+1}.{i}.conv2.{leaf}", also=("layer{s}.{i}.conv2.conv.{leaf}",)),
    ),
    left_out=HEADS,
    elsewhere={"roi_heads.box.feature_extractor.head.layer4.": "layer4."},
    suggests={
        "pixel_mean": [102.9801, 115.9465, 122.7717],
        "pixel_std": [1.0, 1.0, 1.0],
        "input_format": "BGR",
    },
    lookalikes="maskrcnn-benchmark's ResNet-50 and 101 (stride_in_1x1=True) and its ResNeXt-101 (stride_in_1x1=False) "
    "have the same names",
)
