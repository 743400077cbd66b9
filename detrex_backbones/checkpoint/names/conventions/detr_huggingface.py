"""Hugging Face's DETR (`facebook/detr-resnet-50` and its relatives). Ours are detrex's names.

Read off files that `transformers` 5 wrote. It writes the names of its version 4, and has others in memory; both are
read. The backbone has torchvision's names where timm made it, else those of Hugging Face's own ResNet. Each attention's
query, key and value projections stand apart, where torch and detrex have one tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from detrex_backbones.checkpoint.names.conventions import huggingface, torchvision
from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair
from detrex_backbones.checkpoint.names.conventions._detr import (
    BATCH_COUNTERS,
    CATEGORIES,
    DC5,
    KEPT,
    NO_OBJECT,
    ONE_WAY,
    Rows,
    backbone,
    keep_rows,
)
from detrex_backbones.checkpoint.names.conventions._resnet import RGB
from detrex_backbones.checkpoint.read import LazyTensor, joined

BACKBONE = backbone(
    (*torchvision.CONVENTION.pairs, *huggingface.CONVENTION.pairs),
    "model.backbone.conv_encoder.model.",
    "model.backbone.model.",
)


def _layers(part: str, attentions: Sequence[str], norms: Sequence[str]) -> tuple[Pair, ...]:
    """Pairs of all layers of a part, whose attentions and norms are given in the order of use."""
    theirs, ours = f"model.{part}.layers.{{n}}.", f"transformer.{part}.layers.{{n}}."
    pairs = [
        Pair(theirs + "fc1.{leaf}", ours + "ffns.0.layers.0.0.{leaf}", also=(theirs + "mlp.fc1.{leaf}",)),
        Pair(theirs + "fc2.{leaf}", ours + "ffns.0.layers.1.{leaf}", also=(theirs + "mlp.fc2.{leaf}",)),
    ]
    for index, name in enumerate(attentions):
        there, here = theirs + name, f"{ours}attentions.{index}.attn"
        pairs += [
            Pair(f"{there}.q_proj.weight", f"{here}.in_proj_weight"),
            Pair(f"{there}.q_proj.bias", f"{here}.in_proj_bias"),
            Pair(f"{there}.out_proj.{{leaf}}", f"{here}.out_proj.{{leaf}}", also=(f"{there}.o_proj.{{leaf}}",)),
        ]
    pairs += [Pair(f"{theirs}{name}.{{leaf}}", f"{ours}norms.{index}.{{leaf}}") for index, name in enumerate(norms)]
    return tuple(pairs)


def _adapt(network: Mapping[str, LazyTensor]) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    rows = Rows(r"^class_labels_classifier\.", 92, (*CATEGORIES, NO_OBJECT), "COCO's categories, no object")
    tensors, done = keep_rows(network, [rows])
    for name in network:
        parts = [name.replace(".q_proj.", f".{letter}_proj.") for letter in "qkv"]
        if ".q_proj." in name and all(part in network for part in parts):
            tensors[name] = joined([network[part] for part in parts])
            done[name] = "query, key and value joined"
            done |= dict.fromkeys(parts[1:], "joined to its query projection")
    return tensors, done


CONVENTION = Convention(
    name="huggingface-detr",
    aliases=("transformers",),
    anchors=(("model.decoder.layers.0.encoder_attn.q_proj.weight", "model.query_position_embeddings.weight"),),
    pairs=(
        *BACKBONE,
        *_layers("encoder", ["self_attn"], ["self_attn_layer_norm", "final_layer_norm"]),
        *_layers(
            "decoder",
            ["self_attn", "encoder_attn"],
            ["self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"],
        ),
        Pair("model.decoder.layernorm.{leaf}", "transformer.decoder.post_norm_layer.{leaf}"),
        Pair("model.input_projection.{leaf}", "input_proj.{leaf}"),
        Pair("model.query_position_embeddings.weight", "query_embed.weight"),
        Pair("class_labels_classifier.{leaf}", "class_embed.{leaf}"),
        Pair("bbox_predictor.layers.{k}.{leaf}", "bbox_embed.layers.{k}.{leaf}"),
    ),
    left_out={r"^(mask_head|bbox_attention)\.": "panoptic head", **BATCH_COUNTERS},
    elsewhere={name: name for name in ("mask_head.", "bbox_attention.")},
    lookalikes=DC5,
    suggests=RGB,
    adapt=_adapt,
    kept=KEPT,
    one_way=f"{ONE_WAY}, and each attention's projections joined",
)
