"""OpenMMLab's ResNets that have names of their own: deep stems, squeeze-and-excitation, group norm.

Read off `mmdet.models.backbones.resnet` and `mmpretrain.models.backbones.resnet`. Their plain ResNets, in both styles,
have torchvision's names. mmpretrain leaves the pooling of a shortcut out where it would do nothing: in the first stage.
"""

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair
from detrex_backbones.checkpoint.names.conventions._resnet import (
    BLOCKS,
    HEAD,
    HEADS,
    OFFSETS,
    POOLS,
    STEM,
    STRIDES,
    shortcut,
    squeeze,
)

MMDET_STEM = (
    Pair("stem.0.weight", "stem.conv1.weight"),
    Pair("stem.1.{leaf}", "stem.conv1.norm.{leaf}"),
    Pair("stem.3.weight", "stem.conv2.weight"),
    Pair("stem.4.{leaf}", "stem.conv2.norm.{leaf}"),
    Pair("stem.6.weight", "stem.conv3.weight"),
    Pair("stem.7.{leaf}", "stem.conv3.norm.{leaf}"),
)
MMPRETRAIN_STEM = (
    Pair("stem.{k}.conv.weight", "stem.conv{k+1}.weight"),
    Pair("stem.{k}.bn.{leaf}", "stem.conv{k+1}.norm.{leaf}"),
)

SQUEEZE = squeeze("se_layer.conv{k}.conv")
FIRST_CONV, FIRST_NORM = shortcut(0, 1, block="layer1.0", ours="res2.0")
OTHER_CONV, OTHER_NORM = shortcut(1, 2)

# ResNeSt and Res2Net have these stems too, and blocks of their own.
OTHER_BLOCKS = ("layer1.0.conv2.conv.weight", "layer1.0.convs.0.weight")

CONVENTIONS = (
    Convention(
        name="mmdet",
        others=("gluon",),
        anchors=(
            ("layer1.0.downsample.2.weight", "stem.0.weight", "stem.7.weight"),
            ("layer2.0.downsample.2.weight", "stem.0.weight", "stem.7.weight"),
        ),
        without=OTHER_BLOCKS,
        pairs=(*MMDET_STEM, *BLOCKS, *shortcut(1, 2), HEAD),
        left_out=HEADS,
        proves=POOLS,
    ),
    Convention(
        name="mmdet-v1c",
        others=("gluon-v1c",),
        anchors=(("layer2.0.downsample.0.weight", "stem.0.weight", "stem.7.weight"),),
        without=OTHER_BLOCKS,
        aliases=("mmdet",),
        pairs=(*MMDET_STEM, *BLOCKS, *shortcut(0, 1), HEAD),
        left_out=HEADS,
        proves=STRIDES,
    ),
    Convention(
        name="mmdet-gn",
        anchors=(("layer1.0.gn1.weight", "conv1.weight", "gn1.weight"),),
        aliases=("mmdet",),
        pairs=(
            STEM[0],
            Pair("gn1.{leaf}", "stem.conv1.norm.{leaf}"),
            BLOCKS[0],
            Pair("layer{s}.{i}.gn{k}.{leaf}", "res{s+1}.{i}.conv{k}.norm.{leaf}"),
            OFFSETS,
            *shortcut(0, 1),
            HEAD,
        ),
        left_out=HEADS,
        lookalikes="OpenMMLab's networks with weight standardisation (resnet50_gn_ws) have the same names and shapes, "
        "and standardise each convolution's weights as they run: ResNet(..., weight_standardization=True)",
    ),
    Convention(
        name="mmpretrain",
        others=("gluon",),
        anchors=(("layer2.0.downsample.2.weight", "stem.0.conv.weight", "stem.2.bn.weight"),),
        without=OTHER_BLOCKS,
        pairs=(*MMPRETRAIN_STEM, *BLOCKS, SQUEEZE, FIRST_CONV, OTHER_CONV, FIRST_NORM, OTHER_NORM, HEAD),
        left_out=HEADS,
        proves=POOLS,
    ),
    Convention(
        name="mmpretrain-v1c",
        others=("gluon-v1c",),
        anchors=(("layer2.0.downsample.0.weight", "stem.0.conv.weight", "stem.2.bn.weight"),),
        without=OTHER_BLOCKS,
        aliases=("mmpretrain",),
        pairs=(*MMPRETRAIN_STEM, *BLOCKS, SQUEEZE, *shortcut(0, 1), HEAD),
        left_out=HEADS,
        proves=STRIDES,
    ),
    Convention(
        name="mmpretrain-se",
        others=("gluon-se",),
        anchors=(("layer1.0.se_layer.conv1.conv.weight", "conv1.weight", "bn1.weight"),),
        aliases=("mmpretrain",),
        pairs=(*STEM, *BLOCKS, SQUEEZE, *shortcut(0, 1), HEAD),
        left_out=HEADS,
    ),
)
