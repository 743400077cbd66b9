"""What the tables of ResNets with torchvision's block names are made of: stems, blocks, shortcuts, heads."""

from __future__ import annotations

from detrex_backbones.checkpoint.names.conventions._convention import Pair

__all__ = ["BLOCKS", "DEEP_STEM", "HEAD", "HEADS", "OFFSETS", "POOLS", "RGB", "STEM", "STRIDES", "shortcut", "squeeze"]

# The preprocessing of ImageNet that almost all weights with RGB images take, in numbers from 0 to 255.
RGB = {"pixel_mean": [123.675, 116.28, 103.53], "pixel_std": [58.395, 57.12, 57.375], "input_format": "RGB"}

STEM = (Pair("conv1.{leaf}", "stem.conv1.{leaf}"), Pair("bn1.{leaf}", "stem.conv1.norm.{leaf}"))

# Three convolutions in a Sequential called conv1, and the last norm behind it.
DEEP_STEM = (
    Pair("conv1.0.weight", "stem.conv1.weight"),
    Pair("conv1.1.{leaf}", "stem.conv1.norm.{leaf}"),
    Pair("conv1.3.weight", "stem.conv2.weight"),
    Pair("conv1.4.{leaf}", "stem.conv2.norm.{leaf}"),
    Pair("conv1.6.weight", "stem.conv3.weight"),
    Pair("bn1.{leaf}", "stem.conv3.norm.{leaf}"),
)

# In this library's names, as in detectron2's, a shortcut is the same with and without pooling; in a Sequential the
# convolution behind a pool is the second.
POOLS = {"shortcut": "avg_pool"}
STRIDES = {"shortcut": "conv1x1"}

# The convolution that a deformable one gets its offsets from. OpenMMLab's names, of before mmcv 1.0 the second.
OFFSETS = Pair(
    "layer{s}.{i}.conv2.conv_offset.{leaf}",
    "res{s+1}.{i}.conv2_offset.{leaf}",
    also=("layer{s}.{i}.conv2_offset.{leaf}",),
)

BLOCKS = (
    Pair("layer{s}.{i}.conv{k}.{leaf}", "res{s+1}.{i}.conv{k}.{leaf}"),
    Pair("layer{s}.{i}.bn{k}.{leaf}", "res{s+1}.{i}.conv{k}.norm.{leaf}"),
    OFFSETS,
)

HEAD = Pair("fc.{leaf}", "linear.{leaf}")

HEADS = {
    r"^fc\.(weight|bias)$": "head",
    r"^(fc\.\d|projection_head|prototypes|predictor|projector|head)\b": "head of self-supervised training",
    r"^last_linear\.": "head",
    r"\.num_batches_tracked$": "batch counter",
}


def shortcut(conv: int, norm: int, block: str = "layer{s}.{i}", ours: str = "res{s+1}.{i}") -> tuple[Pair, Pair]:
    """A projection that stands at these indices in a Sequential. What is read is told apart by rank, not by index."""
    return (
        Pair(
            f"{block}.downsample.{conv}.weight",
            f"{ours}.shortcut.weight",
            rank=4,
            also=(f"{block}.downsample.{{n}}.weight",),
        ),
        Pair(
            f"{block}.downsample.{norm}.{{leaf}}",
            f"{ours}.shortcut.norm.{{leaf}}",
            also=(f"{block}.downsample.{{n}}.{{leaf}}",),
        ),
    )


def squeeze(layer: str) -> Pair:
    """Squeeze-and-excitation, whose two layers are called `layer`, with `{k}` for 1 and 2."""
    return Pair(f"layer{{s}}.{{i}}.{layer}.{{leaf}}", "res{s+1}.{i}.se.fc{k}.{leaf}")
