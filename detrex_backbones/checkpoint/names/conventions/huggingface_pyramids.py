"""Hugging Face's FocalNet, PVT v2, Hiera and SAM 2's Hiera. Ours are the authors' names.

Read off `transformers.models.focalnet`, `pvt_v2`, `hiera` and `sam2`, `microsoft/FocalNet`, `whai362/PVT`,
`facebookresearch/hiera` and `facebookresearch/sam2`.
"""

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair
from detrex_backbones.checkpoint.names.conventions._parts import (
    LAST_NORM,
    counted_through,
    join_projections,
    pairs_of,
)

FOCALNET = {f"norm{k}.": f"norm{k}." for k in (1, 2)}
FOCALNET |= {f"mlp.fc{k}.": f"mlp.fc{k}." for k in (1, 2)}
FOCALNET |= {f"gamma_{k}": f"gamma_{k}" for k in (1, 2)}
FOCALNET |= {
    "modulation.projection_in.": "modulation.f.",
    "modulation.projection_context.": "modulation.h.",
    "modulation.projection_out.": "modulation.proj.",
    "modulation.layernorm.": "modulation.ln.",
    "modulation.focal_layers.{k}.0.weight": "modulation.focal_layers.{k}.0.weight",
}
PVT_V2 = {
    "layer_norm_1.": "norm1.",
    "attention.query.": "attn.q.",
    "attention.key.": "attn.kv.",
    "attention.proj.": "attn.proj.",
    "attention.spatial_reduction.": "attn.sr.",
    "attention.layer_norm.": "attn.norm.",
    "layer_norm_2.": "norm2.",
    "mlp.dense1.": "mlp.fc1.",
    "mlp.dwconv.dwconv.": "mlp.dwconv.dwconv.",
    "mlp.dense2.": "mlp.fc2.",
}
HIERA = {
    "layernorm_before.": "norm1.",
    "attn.qkv.": "attn.qkv.",
    "attn.proj.": "attn.proj.",
    "layernorm_after.": "norm2.",
    "mlp.fc1.": "mlp.fc1.",
    "mlp.fc2.": "mlp.fc2.",
    "proj.": "proj.",
}
SAM2 = {
    "layer_norm1.": "norm1.",
    "attn.qkv.": "attn.qkv.",
    "attn.proj.": "attn.proj.",
    "layer_norm2.": "norm2.",
    "mlp.proj_in.": "mlp.layers.0.",
    "mlp.proj_out.": "mlp.layers.1.",
    "proj.": "proj.",
}

CONVENTIONS = (
    Convention(
        name="huggingface-focalnet",
        aliases=("huggingface", "transformers"),
        anchors=(
            (
                "encoder.stages.0.layers.0.modulation.projection_in.weight",
                "embeddings.patch_embeddings.projection.weight",
            ),
        ),
        pairs=(
            Pair("embeddings.patch_embeddings.projection.{leaf}", "patch_embed.proj.{leaf}"),
            Pair("embeddings.norm.{leaf}", "patch_embed.norm.{leaf}"),
            Pair("encoder.stages.{s}.downsample.projection.{leaf}", "layers.{s}.downsample.proj.{leaf}"),
            Pair("encoder.stages.{s}.downsample.norm.{leaf}", "layers.{s}.downsample.norm.{leaf}"),
            *pairs_of("encoder.stages.{s}.layers.{i}.", "layers.{s}.blocks.{i}.", FOCALNET),
            Pair("layernorm.{leaf}", "norm.{leaf}"),
        ),
        left_out={r"^embeddings\.mask_token$": "mask of the pre-training", **LAST_NORM},
        original=True,
    ),
    Convention(
        name="huggingface-pvt-v2",
        aliases=("huggingface", "transformers"),
        anchors=(("encoder.layers.0.patch_embedding.proj.weight", "encoder.layers.0.blocks.0.attention.key.weight"),),
        without=("encoder.patch_embeddings.0.projection.weight",),
        pairs=(
            Pair("encoder.layers.{s}.patch_embedding.proj.{leaf}", "patch_embed{s+1}.proj.{leaf}"),
            Pair("encoder.layers.{s}.patch_embedding.layer_norm.{leaf}", "patch_embed{s+1}.norm.{leaf}"),
            *pairs_of("encoder.layers.{s}.blocks.{i}.", "block{s+1}.{i}.", PVT_V2),
            Pair("encoder.layers.{s}.layer_norm.{leaf}", "norm{s+1}.{leaf}"),
        ),
        left_out=LAST_NORM,
        adapt=join_projections("attention.key", "attention.value"),
        one_way="each attention's key and value were joined on reading",
        original=True,
    ),
    Convention(
        name="huggingface-hiera",
        aliases=("huggingface", "transformers"),
        anchors=(("encoder.stages.0.layers.0.attn.qkv.weight", "embeddings.patch_embeddings.projection.weight"),),
        renumber=counted_through("encoder.stages.{s}.layers.{i}.", "blocks.{i}."),
        pairs=(
            Pair("embeddings.patch_embeddings.projection.{leaf}", "patch_embed.proj.{leaf}"),
            Pair("embeddings.position_embeddings", "pos_embed"),
            *pairs_of("blocks.{i}.", "blocks.{i}.", HIERA),
            Pair("hidden_states_norms.stage{s+1}.{leaf}", "norm{s}.{leaf}"),
        ),
        left_out={r"^pooler\.layernorm\.": "norm before the classifier", **LAST_NORM},
        one_way="its blocks are counted within each stage, ours through all of them",
        original=True,
    ),
    Convention(
        name="huggingface-sam2-hiera",
        aliases=("huggingface", "transformers"),
        anchors=(("blocks.0.layer_norm1.weight", "blocks.0.mlp.proj_in.weight", "pos_embed_window"),),
        pairs=(
            Pair("pos_embed", "pos_embed"),
            Pair("pos_embed_window", "pos_embed_window"),
            Pair("patch_embed.projection.{leaf}", "patch_embed.proj.{leaf}"),
            *pairs_of("blocks.{i}.", "blocks.{i}.", SAM2),
        ),
        original=True,
    ),
)
