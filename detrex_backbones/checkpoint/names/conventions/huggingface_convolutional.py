"""Hugging Face's BiT, HGNetV2 (RT-DETR's, D-FINE's) and PP-LCNet. Ours are timm's names.

Read off `transformers.models.bit`, `hgnet_v2` and `pp_lcnet`, and `timm.models`.
"""

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair
from detrex_backbones.checkpoint.names.conventions._parts import BATCH_COUNTERS, LAST_NORM, pairs_of

NORMED = {"convolution.weight": "conv.weight", "normalization.": "bn."}
HGNET = {**NORMED, "lab.scale": "lab.scale", "lab.bias": "lab.bias"}
LCNET = {
    "depthwise_convolution.convolution.weight": "conv_dw.weight",
    "depthwise_convolution.normalization.": "bn1.",
    "squeeze_excitation_module.convolutions.0.": "se.conv_reduce.",
    "squeeze_excitation_module.convolutions.2.": "se.conv_expand.",
    "pointwise_convolution.convolution.weight": "conv_pw.weight",
    "pointwise_convolution.normalization.": "bn2.",
}
# timm has the last four blocks of the fourth stage apart.
LCNET_BLOCKS = (
    *((f"{s}.layers.{{i}}", f"{s}.{{i}}") for s in (0, 1, 2)),
    ("3.layers.0", "3.0"),
    ("3.layers.1", "3.1"),
    ("3.layers.{i+2}", "4.{i}"),
    ("4.layers.{i}", "5.{i}"),
)
BLOCK = "encoder.stages.{s}.blocks.{i}."

CONVENTIONS = (
    Convention(
        name="huggingface-bit",
        aliases=("huggingface", "transformers"),
        anchors=(("embedder.convolution.weight", "encoder.stages.0.layers.0.conv1.weight"),),
        pairs=(
            Pair("embedder.convolution.weight", "stem.conv.weight"),
            Pair("embedder.norm.{leaf}", "stem.norm.{leaf}"),
            *(
                Pair(
                    f"encoder.stages.{{s}}.layers.{{i}}.{name}{{k}}.{{leaf}}",
                    f"stages.{{s}}.blocks.{{i}}.{name}{{k}}.{{leaf}}",
                )
                for name in ("conv", "norm")
            ),
            *pairs_of(
                "encoder.stages.{s}.layers.{i}.downsample.",
                "stages.{s}.blocks.{i}.downsample.",
                {"conv.weight": "conv.weight", "norm.": "norm."},
            ),
            Pair("norm.{leaf}", "norm.{leaf}"),
        ),
        left_out=LAST_NORM,
    ),
    Convention(
        name="huggingface-hgnetv2",
        aliases=("huggingface", "transformers"),
        anchors=(("embedder.stem1.convolution.weight", "encoder.stages.0.blocks.0.layers.0.convolution.weight"),),
        pairs=(
            *(
                pair
                for theirs, ours in (
                    ("embedder.stem{k}", "stem.stem{k}"),
                    ("embedder.stem{k}a", "stem.stem{k}a"),
                    ("embedder.stem{k}b", "stem.stem{k}b"),
                    ("encoder.stages.{s}.downsample", "stages.{s}.downsample"),
                    (f"{BLOCK}layers.{{k}}", "stages.{s}.blocks.{i}.layers.{k}"),
                    (f"{BLOCK}layers.{{k}}.conv{{n}}", "stages.{s}.blocks.{i}.layers.{k}.conv{n}"),
                    (f"{BLOCK}aggregation.{{k}}", "stages.{s}.blocks.{i}.aggregation.{k}"),
                )
                for pair in pairs_of(f"{theirs}.", f"{ours}.", HGNET)
            ),
        ),
        left_out={r"^(classifier|fc)\.": "head", **BATCH_COUNTERS},
    ),
    Convention(
        name="huggingface-pp-lcnet",
        aliases=("huggingface", "transformers"),
        anchors=(
            (
                "encoder.blocks.0.layers.0.depthwise_convolution.convolution.weight",
                "encoder.convolution.convolution.weight",
            ),
        ),
        pairs=(
            *pairs_of("encoder.convolution.", "", {"convolution.weight": "conv_stem.weight", "normalization.": "bn1."}),
            *(
                pair
                for theirs, ours in LCNET_BLOCKS
                for pair in pairs_of(f"encoder.blocks.{theirs}.", f"blocks.{ours}.", LCNET)
            ),
        ),
        left_out={r"^(head|last_convolution|classifier)\.": "head", **BATCH_COUNTERS},
    ),
)
