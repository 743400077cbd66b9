"""Hugging Face's ResNet, alone, behind `resnet.` of a classifier, or inside a DETR.

Read off `transformers.models.resnet`. The classifier stands beside the network, not in it. Where a DETR was saved with
timm's backbone, it has torchvision's names.
"""

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair
from detrex_backbones.checkpoint.names.conventions._resnet import RGB

CONVENTION = Convention(
    name="huggingface",
    anchors=(("embedder.embedder.convolution.weight", "encoder.stages.0.layers.0.layer.0.convolution.weight"),),
    aliases=("transformers",),
    pairs=(
        Pair("embedder.embedder.convolution.weight", "stem.conv1.weight"),
        Pair("embedder.embedder.normalization.{leaf}", "stem.conv1.norm.{leaf}"),
        Pair("encoder.stages.{s}.layers.{i}.layer.{k}.convolution.weight", "res{s+2}.{i}.conv{k+1}.weight"),
        Pair("encoder.stages.{s}.layers.{i}.layer.{k}.normalization.{leaf}", "res{s+2}.{i}.conv{k+1}.norm.{leaf}"),
        Pair("encoder.stages.{s}.layers.{i}.shortcut.convolution.weight", "res{s+2}.{i}.shortcut.weight"),
        Pair("encoder.stages.{s}.layers.{i}.shortcut.normalization.{leaf}", "res{s+2}.{i}.shortcut.norm.{leaf}"),
        Pair("classifier.1.{leaf}", "linear.{leaf}"),
    ),
    left_out={r"^classifier\.": "head", r"\.num_batches_tracked$": "batch counter"},
    elsewhere={"classifier.": "classifier."},
    lookalikes="a ResNet with downsample_in_bottleneck (stride_in_1x1=True) has the same names and shapes",
    suggests=RGB,
    others=("torchvision",),
)
