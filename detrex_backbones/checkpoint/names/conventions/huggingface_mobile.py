"""EfficientNet in Hugging Face's and EfficientNet-PyTorch's names, and Hugging Face's MobileNetV2. Ours are timm's.

Read off `transformers.models.efficientnet` and `mobilenet_v2`, `segmentation_models_pytorch.encoders` and
`timm.models.efficientnet`. All are made after TensorFlow's networks, and count blocks through all stages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair
from detrex_backbones.checkpoint.names.conventions._parts import BATCH_COUNTERS, pairs_of
from detrex_backbones.checkpoint.names.conventions.torchvision_mobilenet import timm_blocks
from detrex_backbones.checkpoint.names.numbers import number_in

# Blocks of each stage of EfficientNet-B0, and how much deeper B1 (and B2) to B8 and L2 are.
DEPTHS, DEEPER = (1, 2, 2, 3, 3, 4, 1), (1.0, 1.1, 1.4, 1.8, 2.2, 2.6, 3.1, 3.6, 5.3)
# Number of all blocks -> of each stage.
STAGES = {sum(stages): stages for factor in DEEPER for stages in [[math.ceil(depth * factor) for depth in DEPTHS]]}
PROVES = {"padding": "same", "norm_eps": 1e-3}
LEFT_OUT = {**BATCH_COUNTERS, r"^(_fc|classifier)\.": "head"}
ONE_WAY = "it counts blocks through all stages"
PADS = (
    "the class that wrote it pads as for its own image size (B0 224, B1 240, B2 260, B3 300, B4 380 pixels); where "
    "others halve otherwise, its maps aren't TensorFlow's, which these are"
)


def _in_stages(row: str) -> Callable[[Iterable[str]], dict[str, str]]:
    """A `Convention.renumber` for names that begin with `row` and a block's number."""

    def renumber(names: Iterable[str]) -> dict[str, str]:
        found = {}
        for name in names:
            number, dot, rest = name.removeprefix(row).partition(".")
            at = number_in(number)
            if name.startswith(row) and dot and at is not None:
                found[name] = (at, rest)
        stages = STAGES.get(len({at for at, _ in found.values()}), [])
        places = dict(enumerate(timm_blocks(stages)))
        return {name: f"{places[at]}{rest}" for name, (at, rest) in found.items() if at in places}

    return renumber


# Of a block: expanding, depthwise, squeeze-and-excitation, projecting. The first stage's expand nothing.
HUGGINGFACE = (
    *("expansion.expand_conv.weight", "expansion.expand_bn."),
    *("depthwise_conv.depthwise_conv.weight", "depthwise_conv.depthwise_norm."),
    *("squeeze_excite.reduce.", "squeeze_excite.expand.", "projection.project_conv.weight", "projection.project_bn."),
)
PYTORCH = (
    *("_expand_conv.weight", "_bn0.", "_depthwise_conv.weight", "_bn1."),
    *("_se_reduce.", "_se_expand.", "_project_conv.weight", "_bn2."),
)
SQUEEZE = ("se.conv_reduce.", "se.conv_expand.")
BLOCK = ("conv_pw.weight", "bn1.", "conv_dw.weight", "bn2.", *SQUEEZE, "conv_pwl.weight", "bn3.")
FIRST = ("conv_dw.weight", "bn1.", *SQUEEZE, "conv_pw.weight", "bn2.")


def _efficientnet(
    name: str, alias: str, block: Sequence[str], stem: Sequence[str], head: Sequence[str], row: str
) -> Convention:
    """One of EfficientNet; `stem` and `head` are the convolution's weight and the norm, `row` is before its blocks."""
    return Convention(
        name=name,
        aliases=(alias,),
        anchors=((f"{row}0.{block[2]}", stem[0], f"{stem[1]}weight"),),
        renumber=_in_stages(row),
        pairs=(
            *pairs_of(
                "", "", dict(zip((*stem, *head), ("conv_stem.weight", "bn1.", "conv_head.weight", "bn2."), strict=True))
            ),
            *pairs_of("blocks.0.{i}.", "blocks.0.{i}.", dict(zip(block[2:], FIRST, strict=True))),
            *pairs_of("blocks.{s}.{i}.", "blocks.{s}.{i}.", dict(zip(block, BLOCK, strict=True))),
        ),
        left_out=LEFT_OUT,
        lookalikes=PADS,
        proves=PROVES,
        one_way=ONE_WAY,
        others=("torchvision-efficientnet",),
    )


def _layers(theirs: str, *names: str) -> dict[str, str]:
    """A convolution and its norm."""
    return dict(zip((f"{theirs}.convolution.weight", f"{theirs}.normalization."), names, strict=True))


CONVENTIONS = (
    _efficientnet(
        "huggingface-efficientnet",
        "huggingface",
        HUGGINGFACE,
        ("embeddings.convolution.weight", "embeddings.batchnorm."),
        ("encoder.top_conv.weight", "encoder.top_bn."),
        "encoder.blocks.",
    ),
    _efficientnet(
        "efficientnet-pytorch",
        "segmentation-models-pytorch",
        PYTORCH,
        ("_conv_stem.weight", "_bn0."),
        ("_conv_head.weight", "_bn1."),
        "_blocks.",
    ),
    Convention(
        name="huggingface-mobilenet-v2",
        aliases=("huggingface",),
        anchors=(
            (
                "layer.0.expand_1x1.convolution.weight",
                "conv_stem.first_conv.convolution.weight",
                "conv_stem.conv_3x3.convolution.weight",
            ),
        ),
        pairs=(
            *pairs_of("conv_stem.", "", _layers("first_conv", "conv_stem.weight", "bn1.")),
            *pairs_of("conv_stem.", "blocks.0.0.", _layers("conv_3x3", "conv_dw.weight", "bn1.")),
            *pairs_of("conv_stem.", "blocks.0.0.", _layers("reduce_1x1", "conv_pw.weight", "bn2.")),
            *(
                pair
                for number, place in enumerate(timm_blocks((1, 2, 3, 4, 3, 3, 1))[1:])  # the first is in the stem
                for pair in pairs_of(
                    f"layer.{number}.",
                    place,
                    {
                        **_layers("expand_1x1", "conv_pw.weight", "bn1."),
                        **_layers("conv_3x3", "conv_dw.weight", "bn2."),
                        **_layers("reduce_1x1", "conv_pwl.weight", "bn3."),
                    },
                )
            ),
            *pairs_of("", "", _layers("conv_1x1", "conv_head.weight", "bn2.")),
            Pair("classifier.{leaf}", "classifier.{leaf}"),
        ),
        left_out=LEFT_OUT,
        # As TensorFlow's: TimmBackbone("mobilenetv2_100", pad_type="same", bn_eps=1e-3).
        proves=PROVES,
        others=("torchvision-mobilenet-v2",),
    ),
)
