"""torchvision's ResNet, ResNeXt and wide ResNet, and all that kept its names.

Read off `torchvision.models.resnet`. OpenMMLab's plain ResNets, Gluon's and timm's v1b, the backbones of torchvision's
detectors and of the DETR family, and the self-supervised ResNets (MoCo, SwAV, DINO, DenseCL, Barlow Twins) have these
names behind a prefix. A shortcut's convolution and norm are told apart by rank, as others number them differently.
"""

from detrex_backbones.checkpoint.names.conventions._convention import Convention
from detrex_backbones.checkpoint.names.conventions._resnet import BLOCKS, HEAD, HEADS, RGB, STEM, shortcut

__all__ = ["CONVENTION", "HEAD"]

CONVENTION = Convention(
    name="torchvision",
    anchors=(("layer1.0.conv1.weight", "conv1.weight", "bn1.weight"),),
    # Squeeze-and-excitation of timm and of mmpretrain.
    without=("layer1.0.se.fc1.weight", "layer1.0.se_layer.conv1.conv.weight"),
    # With a 3x3 kernel it is OpenMMLab's RegNetX, or HRNet.
    shapes={"conv1.weight": (None, None, 7, 7)},
    aliases=("timm", "gluon", "mmdet", "mmpretrain", "moco", "swav", "dino", "densecl", "barlowtwins"),
    pairs=(*STEM, *BLOCKS, *shortcut(0, 1), HEAD),
    left_out=HEADS,
    suggests=RGB,
    lookalikes="OpenMMLab's caffe-style ResNets (stride_in_1x1=True, BGR, pixel_std 1), its ResNeXt-101 32x8d (BGR), "
    "the DC5 backbones of DETR (res5 dilated) and OpenMMLab's TridentNet (three branches of dilated convolutions) have "
    "the same names and shapes",
    unlike=("fc.weight",),  # the others are backbones, without a classifier
)
