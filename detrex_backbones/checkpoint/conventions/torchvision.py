"""torchvision's ResNet, ResNeXt and wide ResNet, and all that kept its names.

Read off `torchvision.models.resnet`. OpenMMLab's plain ResNets, Gluon's and timm's v1b, the backbones of torchvision's
detectors and of the DETR family, and the self-supervised ResNets (MoCo, SwAV, DINO, DenseCL, Barlow Twins) have these
names behind a prefix. A shortcut's convolution and norm are told apart by rank, as others number them differently.
"""

from detrex_backbones.checkpoint.conventions._convention import Convention, Pair

BLOCKS = (
    Pair("layer{s}.{i}.conv{k}.{leaf}", "res{s+1}.{i}.conv{k}.{leaf}"),
    Pair("layer{s}.{i}.bn{k}.{leaf}", "res{s+1}.{i}.conv{k}.norm.{leaf}"),
    Pair(
        "layer{s}.{i}.downsample.0.weight",
        "res{s+1}.{i}.shortcut.weight",
        rank=4,
        also=("layer{s}.{i}.downsample.{n}.weight",),
    ),
    Pair(
        "layer{s}.{i}.downsample.1.{leaf}",
        "res{s+1}.{i}.shortcut.norm.{leaf}",
        also=("layer{s}.{i}.downsample.{n}.{leaf}",),
    ),
)
HEAD = Pair("fc.{leaf}", "linear.{leaf}")

CONVENTION = Convention(
    name="torchvision",
    anchors=(("layer1.0.conv1.weight", "conv1.weight", "bn1.weight"),),
    pairs=(
        Pair("conv1.{leaf}", "stem.conv1.{leaf}"),
        Pair("bn1.{leaf}", "stem.conv1.norm.{leaf}"),
        *BLOCKS,
        HEAD,
    ),
    left_out={r"^fc\.": "classifier head", r"\.num_batches_tracked$": "batch counter"},
    twins="OpenMMLab's caffe-style ResNets (stride_in_1x1=True, BGR, pixel_std 1) have the same names and shapes",
)
