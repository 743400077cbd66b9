"""Deformable DETR (plain, box refinement, two-stage, single-scale) and DN Deformable DETR. Ours are detrex's names.

Read off the original `fundamentalvision/Deformable-DETR` and `IDEA-Research/DN-DETR`, and detrex's projects of these
names. The heads stand once for each decoder layer, whether or not the layers share them; those that the decoder itself
uses (boxes with refinement, classes too with two stages) stand a second time under `transformer.decoder`.
"""

from __future__ import annotations

from collections.abc import Mapping

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair
from detrex_backbones.checkpoint.names.conventions._detr import (
    BACKBONE,
    BATCH_COUNTERS,
    CATEGORIES,
    FEED_FORWARD,
    KEPT,
    NO_OBJECT,
    ONE_WAY,
    QUERY_HEADS,
    Rows,
    attention,
    keep_rows,
    layers,
    same,
)
from detrex_backbones.checkpoint.names.conventions._resnet import RGB
from detrex_backbones.checkpoint.names.numbers import number_in
from detrex_backbones.checkpoint.read import LazyTensor

CLASS_HEADS = r"^(transformer\.decoder\.)?class_embed\.{index}\."

# res3, res4 and res5 (or res5 alone) each have a convolution; further levels are made from the last.
NECK = tuple(
    Pair(f"input_proj.{theirs}.{part}.{{leaf}}", f"neck.{ours}.{name}.{{leaf}}")
    for theirs, ours in (("0", "convs.0"), ("1", "convs.1"), ("2", "convs.2"), ("{n}", "extra_convs.{n-3}"))
    for part, name in ((0, "conv"), (1, "norm"))
)

DEFORMABLE_ATTENTION = ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
ENCODER = {f"self_attn.{name}.{{leaf}}": f"attentions.0.{name}.{{leaf}}" for name in DEFORMABLE_ATTENTION}
DECODER = {
    **attention("self_attn", "attentions.0.attn"),
    **{f"cross_attn.{name}.{{leaf}}": f"attentions.1.{name}.{{leaf}}" for name in DEFORMABLE_ATTENTION},
}
ENCODER_NORMS = {"norm1.{leaf}": "norms.0.{leaf}", "norm2.{leaf}": "norms.1.{leaf}"}
# The original's numbers follow the code that defines them, detrex's the order of use: self-attention is first.
DECODER_NORMS = {"norm2.{leaf}": "norms.0.{leaf}", "norm1.{leaf}": "norms.1.{leaf}", "norm3.{leaf}": "norms.2.{leaf}"}

COMMON = (
    *BACKBONE,
    *NECK,
    *layers("encoder", ENCODER, FEED_FORWARD, ENCODER_NORMS),
    *layers("decoder", DECODER, FEED_FORWARD, DECODER_NORMS),
    Pair("transformer.level_embed", "transformer.level_embeds"),
    *same("class_embed.{i}.{leaf}", "transformer.decoder.class_embed.{i}.{leaf}"),
    *same("bbox_embed.{i}.layers.{k}.{leaf}", "transformer.decoder.bbox_embed.{i}.layers.{k}.{leaf}"),
)


def _adapt(network: Mapping[str, LazyTensor]) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    rules = [
        Rows(CLASS_HEADS.format(index=r"\d+"), 91, CATEGORIES, "COCO's categories"),
        Rows(r"^label_enc\.", 92, (*CATEGORIES, NO_OBJECT), "COCO's categories, no object"),
    ]
    if "transformer.enc_output.weight" in network:
        # The last head finds the proposals, whatever their class, by its row 0 alone.
        last = max(
            (number_in(name.split(".")[1]) or 0 for name in network if name.startswith("class_embed.")), default=0
        )
        rules.insert(0, Rows(CLASS_HEADS.format(index=last), 91, range(80), "the first, of which 0 finds proposals"))
    return keep_rows(network, rules)


DEFORMABLE = Convention(
    name="deformable-detr",
    anchors=(
        ("transformer.decoder.layers.0.cross_attn.sampling_offsets.weight", "query_embed.weight"),
        ("transformer.decoder.layers.0.cross_attn.sampling_offsets.weight", "transformer.enc_output.weight"),
    ),
    pairs=(
        *COMMON,
        Pair("query_embed.weight", "query_embedding.weight"),
        *same(
            "transformer.reference_points.{leaf}",
            "transformer.enc_output.{leaf}",
            "transformer.enc_output_norm.{leaf}",
            "transformer.pos_trans.{leaf}",
            "transformer.pos_trans_norm.{leaf}",
        ),
    ),
    left_out=BATCH_COUNTERS,
    suggests=RGB,
    lookalikes="the single-scale model and the DC5 one, whose res5 is dilated, have the same names and shapes",
    adapt=_adapt,
    kept=KEPT,
    one_way=ONE_WAY,
)

DN_DEFORMABLE = Convention(
    name="dn-deformable-detr",
    anchors=(("transformer.decoder.layers.0.cross_attn.sampling_offsets.weight", "label_enc.weight"),),
    pairs=(
        *COMMON,
        Pair("label_enc.weight", "denoising_generator.label_encoder.weight"),
        *QUERY_HEADS,
        *same("tgt_embed.weight", "refpoint_embed.weight"),
    ),
    left_out=BATCH_COUNTERS,
    suggests=RGB,
    adapt=_adapt,
    kept=KEPT,
    one_way=ONE_WAY,
)

CONVENTIONS = (DEFORMABLE, DN_DEFORMABLE)
