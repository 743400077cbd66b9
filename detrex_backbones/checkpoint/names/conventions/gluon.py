"""Gluon's ResNets and SE networks as ported to PyTorch, which timm names alike.

Read off `rwightman/pytorch-pretrained-gluonresnet` and `timm.models.resnet`. v1b has torchvision's names. v1d and v1e
pool in front of every shortcut's convolution, so that its index is 1; in all others it is 0.
"""

from detrex_backbones.checkpoint.names.conventions._convention import Convention
from detrex_backbones.checkpoint.names.conventions._resnet import (
    BLOCKS,
    DEEP_STEM,
    HEAD,
    HEADS,
    POOLS,
    RGB,
    STEM,
    STRIDES,
    shortcut,
    squeeze,
)

# ResNeSt and Res2Net have this stem too, and blocks of their own.
OTHER_BLOCKS = ("layer1.0.conv2.conv.weight", "layer1.0.convs.0.weight")
SQUEEZE = squeeze("se.fc{k}")

CONVENTIONS = (
    Convention(
        name="gluon",
        anchors=(
            ("layer1.0.downsample.2.weight", "conv1.0.weight", "bn1.weight"),
            ("layer2.0.downsample.2.weight", "conv1.0.weight", "bn1.weight"),
        ),
        without=OTHER_BLOCKS,
        aliases=("timm",),
        pairs=(*DEEP_STEM, *BLOCKS, SQUEEZE, *shortcut(1, 2), HEAD),
        left_out=HEADS,
        proves=POOLS,
        suggests=RGB,
    ),
    Convention(
        name="gluon-v1c",
        anchors=(
            ("layer1.0.downsample.0.weight", "conv1.0.weight", "bn1.weight"),
            ("layer2.0.downsample.0.weight", "conv1.0.weight", "bn1.weight"),
        ),
        without=OTHER_BLOCKS,
        aliases=("gluon", "timm"),
        pairs=(*DEEP_STEM, *BLOCKS, SQUEEZE, *shortcut(0, 1), HEAD),
        left_out=HEADS,
        proves=STRIDES,
        suggests=RGB,
    ),
    Convention(
        name="gluon-se",
        anchors=(("layer1.0.se.fc1.weight", "conv1.weight", "bn1.weight"),),
        aliases=("gluon", "timm"),
        pairs=(*STEM, *BLOCKS, SQUEEZE, *shortcut(0, 1), HEAD),
        left_out=HEADS,
        suggests=RGB,
    ),
)
