"""ResNeSt and Res2Net of OpenMMLab, and ResNeSt of its authors' detectron2. Ours are timm's names, which runs both.

Read off `mmdet.models.backbones.resnest` and `res2net`, `mmpretrain.models.backbones.resnest`, and
`zhanghang1989/detectron2`. ResNeSt's own files have timm's names.
"""

from __future__ import annotations

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair
from detrex_backbones.checkpoint.names.conventions._resnet import HEADS

# A deep stem's convolution and norm, thrice.
STEM = (("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1"))
SHORTCUT = ("downsample.1.weight", "downsample.2.{leaf}")
BLOCKS = (
    "conv{k}.weight",
    "bn{k}.{leaf}",
    "conv2.conv.weight",
    "conv2.bn{k}.{leaf}",
    "conv2.fc{k}.{leaf}",
    "convs.{k}.weight",
    "bns.{k}.{leaf}",
)


def _stem(*theirs: tuple[str, str]) -> list[Pair]:
    pairs = []
    for (conv, norm), (our_conv, our_norm) in zip(theirs, STEM, strict=True):
        pairs += [Pair(f"{conv}.weight", f"{our_conv}.weight"), Pair(f"{norm}.{{leaf}}", f"{our_norm}.{{leaf}}")]
    return pairs


def _same(*names: str) -> list[Pair]:
    return [Pair(f"layer{{s}}.{{i}}.{name}", f"layer{{s}}.{{i}}.{name}") for name in names]


HEAD = Pair("fc.{leaf}", "fc.{leaf}")
MMDET_STEM = _stem(("stem.0", "stem.1"), ("stem.3", "stem.4"), ("stem.6", "stem.7"))
SUGGESTS = {"pixel_mean": [123.68, 116.779, 103.939], "pixel_std": [58.393, 57.12, 57.375], "input_format": "RGB"}

CONVENTIONS = (
    Convention(
        name="mmdet-resnest",
        anchors=(("layer1.0.conv2.fc1.weight", "stem.0.weight", "stem.7.weight"),),
        aliases=("mmdet",),
        pairs=(*MMDET_STEM, *_same(*BLOCKS, *SHORTCUT), HEAD),
        left_out=HEADS,
        suggests=SUGGESTS,
    ),
    Convention(
        name="mmdet-res2net",
        anchors=(("layer1.0.convs.0.weight", "stem.0.weight", "stem.7.weight"),),
        aliases=("mmdet",),
        pairs=(*MMDET_STEM, *_same(*BLOCKS, *SHORTCUT), HEAD),
        left_out=HEADS,
        proves={"stride1_pool": False},
    ),
    Convention(
        name="mmpretrain-resnest",
        anchors=(("layer1.0.conv2.fc1.weight", "stem.0.conv.weight", "stem.2.bn.weight"),),
        aliases=("mmpretrain",),
        pairs=(
            *_stem(("stem.0.conv", "stem.0.bn"), ("stem.1.conv", "stem.1.bn"), ("stem.2.conv", "stem.2.bn")),
            Pair("layer1.0.downsample.0.weight", "layer1.0.downsample.1.weight", rank=4),
            Pair("layer1.0.downsample.1.{leaf}", "layer1.0.downsample.2.{leaf}"),
            *_same(*BLOCKS, *SHORTCUT),
            HEAD,
        ),
        left_out=HEADS,
    ),
    Convention(
        name="detectron2-resnest",
        anchors=(("res2.0.conv2.fc1.weight", "stem.conv1_1.weight", "stem.conv1_3.weight"),),
        aliases=("detectron2",),
        pairs=(
            *_stem(*((f"stem.conv1_{k}", f"stem.conv1_{k}.norm") for k in (1, 2, 3))),
            Pair("res{s}.{i}.conv{k}.weight", "layer{s-1}.{i}.conv{k}.weight"),
            Pair("res{s}.{i}.conv{k}.norm.{leaf}", "layer{s-1}.{i}.bn{k}.{leaf}"),
            *(
                Pair(f"res{{s}}.{{i}}.{name}", f"layer{{s-1}}.{{i}}.{name}")
                for name in ("conv2.conv.weight", "conv2.bn{k}.{leaf}", "conv2.fc{k}.{leaf}")
            ),
            Pair("res{s}.{i}.shortcut.weight", "layer{s-1}.{i}.downsample.1.weight"),
            Pair("res{s}.{i}.shortcut.norm.{leaf}", "layer{s-1}.{i}.downsample.2.{leaf}"),
            Pair("linear.{leaf}", "fc.{leaf}"),
        ),
        left_out={r"^linear\.": "head", r"\.num_batches_tracked$": "batch counter"},
        suggests=SUGGESTS,
    ),
)
