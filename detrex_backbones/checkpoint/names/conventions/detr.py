"""DETR, and Conditional DETR, which has its transformer and other attentions. Ours are detrex's names.

Read off the original `facebookresearch/detr` and `Atten4Vis/ConditionalDETR`, and detrex's projects of these names. The
heads stand once for all decoder layers. DETR's panoptic files have the detector behind `detr.` and the panoptic head
beside it; so has DETR's own wrapper for detectron2, which holds the backbone in detectron2's names.
"""

from __future__ import annotations

from collections.abc import Mapping

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair
from detrex_backbones.checkpoint.names.conventions._detr import (
    BACKBONE,
    BATCH_COUNTERS,
    CATEGORIES,
    DC5,
    FEED_FORWARD,
    KEPT,
    NO_OBJECT,
    NORMS,
    ONE_WAY,
    QUERY_HEADS,
    Rows,
    attention,
    keep_rows,
    layers,
    same,
)
from detrex_backbones.checkpoint.names.conventions._resnet import RGB
from detrex_backbones.checkpoint.read import LazyTensor

# Beside the transformer's layers. Encoders have a last norm only where the norms come first in each layer.
COMMON = (
    *BACKBONE,
    *layers("encoder", attention("self_attn", "attentions.0.attn"), FEED_FORWARD, NORMS),
    Pair("transformer.encoder.norm.{leaf}", "transformer.encoder.post_norm_layer.{leaf}"),
    Pair("transformer.decoder.norm.{leaf}", "transformer.decoder.post_norm_layer.{leaf}"),
    *same("input_proj.{leaf}", "query_embed.weight", "class_embed.{leaf}", "bbox_embed.layers.{k}.{leaf}"),
)

DECODER = {**attention("self_attn", "attentions.0.attn"), **attention("multihead_attn", "attentions.1.attn")}

# Of the wrapper for detectron2. Read, never written: the pairs of `COMMON` come first.
WRAPPED_BACKBONE = tuple(
    Pair(f"backbone.0.backbone.{pair.ours.removeprefix('backbone.')}", pair.ours) for pair in BACKBONE
)

# Each of Conditional DETR's attentions: its letter in their names, its number in detrex's.
PROJECTIONS = {
    f"{letter}_{theirs}.{{leaf}}": f"attentions.{number}.{ours}.{{leaf}}"
    for letter, number in (("sa", 0), ("ca", 1))
    for theirs, ours in (
        ("qcontent_proj", "query_content_proj"),
        ("qpos_proj", "query_pos_proj"),
        ("qpos_sine_proj", "query_pos_sine_proj"),
        ("kcontent_proj", "key_content_proj"),
        ("kpos_proj", "key_pos_proj"),
        ("v_proj", "value_proj"),
    )
}
CONDITIONAL_DECODER = {
    **PROJECTIONS,
    "self_attn.out_proj.{leaf}": "attentions.0.out_proj.{leaf}",
    "cross_attn.out_proj.{leaf}": "attentions.1.out_proj.{leaf}",
}


def _with_no_object(network: Mapping[str, LazyTensor]) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """detrex's last class is "no object"."""
    rows = (*CATEGORIES, NO_OBJECT)
    return keep_rows(
        network, [Rows(r"^(class_embed\.|criterion\.empty_weight$)", 92, rows, "COCO's categories, no object")]
    )


def _categories(network: Mapping[str, LazyTensor]) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    return keep_rows(network, [Rows(r"^class_embed\.", 91, CATEGORIES, "COCO's categories")])


DETR = Convention(
    name="detr",
    anchors=(("transformer.decoder.layers.0.multihead_attn.in_proj_weight", "query_embed.weight"),),
    pairs=(
        *COMMON,
        *layers("decoder", DECODER, FEED_FORWARD, NORMS),
        *WRAPPED_BACKBONE,
        *same("criterion.empty_weight"),
    ),
    left_out={r"^(mask_head|bbox_attention)\.": "panoptic head", **BATCH_COUNTERS},
    elsewhere={name: name for name in ("mask_head.", "bbox_attention.", "criterion.")},
    lookalikes=DC5,
    suggests=RGB,
    adapt=_with_no_object,
    kept=KEPT,
    one_way=ONE_WAY,
)

CONDITIONAL = Convention(
    name="conditional-detr",
    anchors=(("transformer.decoder.layers.0.ca_qcontent_proj.weight", "query_embed.weight"),),
    pairs=(
        *COMMON,
        *layers("decoder", CONDITIONAL_DECODER, FEED_FORWARD, NORMS),
        *QUERY_HEADS,
    ),
    left_out=BATCH_COUNTERS,
    lookalikes=DC5,
    suggests=RGB,
    adapt=_categories,
    kept=KEPT,
    one_way=ONE_WAY,
)

CONVENTIONS = (DETR, CONDITIONAL)
