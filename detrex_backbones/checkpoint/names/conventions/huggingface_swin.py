"""Hugging Face's Swin Transformers: version 1, as a MaskFormer has it too, and version 2. Ours are the authors' names.

Read off `transformers.models.swin`, `maskformer` and `swinv2`, and `microsoft/Swin-Transformer`. A backbone has a norm
for each map beside the network, or around it.
"""

from __future__ import annotations

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair
from detrex_backbones.checkpoint.names.conventions._parts import LAST_NORM, WRITTEN_APART, join_projections, pairs_of

SELF = "attention.self."
BLOCK = {
    "layernorm_before.": "norm1.",
    "attention.output.dense.": "attn.proj.",
    "layernorm_after.": "norm2.",
    "intermediate.dense.": "mlp.fc1.",
    "output.dense.": "mlp.fc2.",
}
V1 = {
    **BLOCK,
    f"{SELF}query.": "attn.qkv.",
    f"{SELF}relative_position_bias_table": "attn.relative_position_bias_table",
    f"{SELF}relative_position_index": "attn.relative_position_index",
}
V2 = {
    **BLOCK,
    f"{SELF}query.weight": "attn.qkv.weight",
    f"{SELF}query.bias": "attn.q_bias",
    f"{SELF}value.bias": "attn.v_bias",
    f"{SELF}logit_scale": "attn.logit_scale",
    f"{SELF}continuous_position_bias_mlp.0.": "attn.cpb_mlp.0.",
    f"{SELF}continuous_position_bias_mlp.2.": "attn.cpb_mlp.2.",
}
# Older files have it.
COMPUTED = {r"(^|\.)relative_position_index$": "computed by the model"}
FIRST = ("embeddings.patch_embeddings.projection.weight", "encoder.layers.0.blocks.0.attention.self.query.weight")
CONTINUOUS = "encoder.layers.0.blocks.0.attention.self.continuous_position_bias_mlp.0.weight"
ADAPT = join_projections("attention.self.query", "attention.self.key", "attention.self.value")


def _pairs(inside: str, block: dict[str, str]) -> tuple[Pair, ...]:
    """All of a network, behind what stands before its names."""
    return (
        Pair(f"{inside}embeddings.patch_embeddings.projection.{{leaf}}", "patch_embed.proj.{leaf}"),
        Pair(f"{inside}embeddings.norm.{{leaf}}", "patch_embed.norm.{leaf}"),
        Pair(f"{inside}embeddings.position_embeddings", "absolute_pos_embed"),
        *pairs_of(f"{inside}encoder.layers.{{s}}.blocks.{{i}}.", "layers.{s}.blocks.{i}.", block),
        *pairs_of(
            f"{inside}encoder.layers.{{s}}.downsample.",
            "layers.{s}.downsample.",
            {"norm.": "norm.", "reduction.weight": "reduction.weight"},
        ),
        Pair(f"{inside}layernorm.{{leaf}}", "norm.{leaf}"),
    )


CONVENTIONS = (
    Convention(
        name="huggingface-swin",
        aliases=("huggingface", "transformers"),
        anchors=(FIRST,),
        without=(CONTINUOUS,),
        pairs=(*_pairs("", V1), Pair("hidden_states_norms.stage{s+1}.{leaf}", "norm{s}.{leaf}")),
        kept=COMPUTED,
        # Its backbone is written with this one in front of a name.
        left_out={r"^swin\.layernorm\.": "norm before the classifier", **LAST_NORM},
        adapt=ADAPT,
        one_way=WRITTEN_APART,
        original=True,
    ),
    Convention(
        name="huggingface-maskformer-swin",
        aliases=("huggingface", "transformers"),
        anchors=(("hidden_states_norms.0.weight", *(f"model.{name}" for name in FIRST)),),
        pairs=(*_pairs("model.", V1), Pair("hidden_states_norms.{s}.{leaf}", "norm{s}.{leaf}")),
        left_out={r"^model\.layernorm\.": "norm before the classifier"},
        adapt=ADAPT,
        one_way=WRITTEN_APART,
        original=True,
    ),
    Convention(
        name="huggingface-swinv2",
        aliases=("huggingface", "transformers"),
        anchors=((*FIRST, CONTINUOUS),),
        pairs=_pairs("", V2),
        left_out=LAST_NORM,
        adapt=ADAPT,
        one_way=WRITTEN_APART,
        original=True,
    ),
)
