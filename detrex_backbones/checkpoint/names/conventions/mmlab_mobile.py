"""OpenMMLab's MobileNetV2 and EfficientNet. Ours are timm's names.

Read off `mmdet.models.backbones.mobilenet_v2` and `efficientnet`, and `timm.models.efficientnet`. Both have inverted
residual blocks, whose layers timm calls otherwise where nothing is expanded. OpenMMLab has EfficientNet's stages of
the same stride in one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from detrex_backbones.checkpoint.names.conventions._convention import Convention
from detrex_backbones.checkpoint.names.conventions._parts import BATCH_COUNTERS, pairs_of
from detrex_backbones.checkpoint.names.numbers import number_in


def _layers(**names: tuple[str, str]) -> dict[str, str]:
    """OpenMMLab's layers of a convolution and a norm -> what timm calls the two."""
    return {
        name: ours
        for layer, (conv, norm) in names.items()
        for name, ours in ((f"{layer}.conv.weight", f"{conv}.weight"), (f"{layer}.bn.", f"{norm}."))
    }


SQUEEZE = {"se.conv1.conv.": "se.conv_reduce.", "se.conv2.conv.": "se.conv_expand."}
FIRST = {**_layers(depthwise_conv=("conv_dw", "bn1"), linear_conv=("conv_pw", "bn2")), **SQUEEZE}
BLOCK = {
    **_layers(expand_conv=("conv_pw", "bn1"), depthwise_conv=("conv_dw", "bn2"), linear_conv=("conv_pwl", "bn3")),
    **SQUEEZE,
}
STEM = {"conv.weight": "conv_stem.weight", "bn.": "bn1."}
HEAD = {"conv.weight": "conv_head.weight", "bn.": "bn2."}


def _stages_apart(names: Iterable[str]) -> dict[str, str]:
    """Blocks as timm numbers them: OpenMMLab's fourth stage is two of as many blocks, its fifth ends with the last one.

    That has as many blocks as the first: all of EfficientNet's are made deeper by one factor.
    """
    blocks = {tuple(name.split(".", 3)[1:3]) for name in names if name.count(".") > 3 and name.startswith("layers.")}
    number = Counter(stage for stage, _ in blocks)
    found = {}
    for name in names:
        _, stage, index, *rest = [*name.split(".", 3), "", ""]
        at, place = number_in(stage), number_in(index)
        if (stage, index) in blocks and at is not None and place is not None:
            last = {"4": number[stage] // 2, "5": number[stage] - number["1"]}.get(stage, number[stage])
            before = at - 1 + (stage == "5")
            more = place >= last
            found[name] = f"blocks.{before + more}.{place - last * more}.{rest[0]}"
    return found


CONVENTIONS = (
    Convention(
        name="mmdet-mobilenet-v2",
        aliases=("mmdet", "mmpretrain"),
        anchors=(("layer1.0.depthwise_conv.conv.weight", "layer2.0.expand_conv.conv.weight", "conv1.conv.weight"),),
        pairs=(
            *pairs_of("conv1.", "", STEM),
            *pairs_of("layer1.{i}.", "blocks.0.{i}.", FIRST),
            *pairs_of("layer{s+1}.{i}.", "blocks.{s}.{i}.", BLOCK),
            *pairs_of("conv2.", "", HEAD),
        ),
        left_out=BATCH_COUNTERS,
        others=("torchvision-mobilenet-v2",),
    ),
    Convention(
        name="mmdet-efficientnet",
        aliases=("mmdet", "mmpretrain"),
        anchors=(
            ("layers.1.0.depthwise_conv.conv.weight", "layers.2.0.expand_conv.conv.weight", "layers.0.conv.weight"),
        ),
        renumber=_stages_apart,
        pairs=(
            *pairs_of("layers.0.", "", STEM),
            *pairs_of("blocks.0.{i}.", "blocks.0.{i}.", FIRST),
            *pairs_of("blocks.{s}.{i}.", "blocks.{s}.{i}.", BLOCK),
            *pairs_of("layers.6.", "", HEAD),
        ),
        left_out=BATCH_COUNTERS,
        # timm's tf_efficientnet_* compute the same; its efficientnet_* have the same names and shapes.
        proves={"padding": "same", "norm_eps": 1e-3},
        one_way="its stages are two in one",
        others=("torchvision-efficientnet",),
    ),
)
