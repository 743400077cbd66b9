"""Hugging Face's plain vision transformers: DINOv2 with and without registers, DINOv3, BEiT, VitDet, RF-DETR, LW-DETR.

Ours are the authors' names (detectron2's for VitDet). Read off `transformers.models.dinov2`, `dinov2_with_registers`,
`dinov3_vit`, `beit`, `vitdet`, `rf_detr` and `lw_detr`, `facebookresearch/dinov2` and `dinov3`, `microsoft/unilm`,
`detectron2.modeling.backbone.vit` and `Atten4Vis/LW-DETR`.
"""

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair
from detrex_backbones.checkpoint.names.conventions._parts import LAST_NORM, WRITTEN_APART, join_projections, pairs_of

LEFT_OUT = {r"^embeddings\.mask_token$": "mask of the pre-training", **LAST_NORM}
PROJECTIONS = ("attention.attention.query", "attention.attention.key", "attention.attention.value")
TABLE = "attention.attention.relative_position_bias.relative_position_bias_table"
TOKENS = (
    Pair("embeddings.cls_token", "cls_token"),
    Pair("embeddings.mask_token", "mask_token"),
    Pair("embeddings.position_embeddings", "pos_embed"),
    Pair("embeddings.patch_embeddings.projection.{leaf}", "patch_embed.proj.{leaf}"),
)
NORMS = {"norm1.": "norm1.", "norm2.": "norm2."}
SCALES = {"layer_scale1.lambda1": "ls1.gamma", "layer_scale2.lambda1": "ls2.gamma"}
DINOV2 = {
    **NORMS,
    **SCALES,
    "attention.attention.query.": "attn.qkv.",
    "attention.output.dense.": "attn.proj.",
    "mlp.fc1.": "mlp.fc1.",
    "mlp.fc2.": "mlp.fc2.",
    "mlp.weights_in.": "mlp.w12.",
    "mlp.weights_out.": "mlp.w3.",
}
BEIT = {
    "layernorm_before.": "norm1.",
    "attention.attention.query.weight": "attn.qkv.weight",
    "attention.attention.query.bias": "attn.q_bias",
    "attention.attention.value.bias": "attn.v_bias",
    TABLE: "attn.relative_position_bias_table",
    "attention.output.dense.": "attn.proj.",
    "layernorm_after.": "norm2.",
    "intermediate.dense.": "mlp.fc1.",
    "output.dense.": "mlp.fc2.",
    "lambda_1": "gamma_1",
    "lambda_2": "gamma_2",
}
VITDET = {
    **NORMS,
    "attention.qkv.": "attn.qkv.",
    "attention.proj.": "attn.proj.",
    "attention.rel_pos_h": "attn.rel_pos_h",
    "attention.rel_pos_w": "attn.rel_pos_w",
    "mlp.fc1.": "mlp.fc1.",
    "mlp.fc2.": "mlp.fc2.",
}
RF_DETR = {
    **NORMS,
    **SCALES,
    "attention.q_proj.": "attn.qkv.",
    "attention.o_proj.": "attn.proj.",
    "mlp.fc1.": "mlp.fc1.",
    "mlp.fc2.": "mlp.fc2.",
}
LW_DETR = {
    "layernorm_before.": "norm1.",
    "attention.q_proj.weight": "attn.qkv.weight",
    "attention.q_proj.bias": "attn.q_bias",
    "attention.v_proj.bias": "attn.v_bias",
    "attention.o_proj.": "attn.proj.",
    "layernorm_after.": "norm2.",
    "intermediate.fc1.": "mlp.fc1.",
    "intermediate.fc2.": "mlp.fc2.",
    "gamma_1": "gamma_1",
    "gamma_2": "gamma_2",
}
DINOV3 = {**NORMS, **SCALES, "attention.q_proj.": "attn.qkv.", "attention.o_proj.": "attn.proj."}
# With a gate, the authors count the layers of an MLP; without, they call them as all do.
PLAIN_MLP = {"mlp.up_proj.": "mlp.fc1.", "mlp.down_proj.": "mlp.fc2."}
GATED_MLP = {"mlp.gate_proj.": "mlp.w1.", "mlp.up_proj.": "mlp.w2.", "mlp.down_proj.": "mlp.w3."}
GATE = "layer.0.mlp.gate_proj.weight"


def _dinov3(name: str, mlp: dict[str, str], gated: bool) -> Convention:
    first = ("layer.0.attention.q_proj.weight", "embeddings.patch_embeddings.weight", "layer.0.layer_scale1.lambda1")
    return Convention(
        name=name,
        aliases=("huggingface", "transformers"),
        anchors=((*first, GATE) if gated else first,),
        without=() if gated else (GATE,),
        pairs=(
            *TOKENS[:2],
            Pair("embeddings.register_tokens", "storage_tokens"),
            Pair("embeddings.patch_embeddings.{leaf}", "patch_embed.proj.{leaf}"),
            *pairs_of("layer.{i}.", "blocks.{i}.", {**DINOV3, **mlp}),
            Pair("norm.{leaf}", "norm.{leaf}"),
        ),
        left_out=LEFT_OUT,
        # Keys have no bias.
        adapt=join_projections(*(f"attention.{letter}_proj" for letter in "qkv"), zeros=True),
        one_way=WRITTEN_APART,
        original=True,
    )


CONVENTIONS = (
    Convention(
        name="huggingface-dinov2",
        aliases=("huggingface", "transformers"),
        anchors=(
            (
                "encoder.layer.0.attention.attention.query.weight",
                "embeddings.patch_embeddings.projection.weight",
                "encoder.layer.0.layer_scale1.lambda1",
            ),
        ),
        pairs=(
            *TOKENS,
            Pair("embeddings.register_tokens", "register_tokens"),
            *pairs_of("encoder.layer.{i}.", "blocks.{i}.", DINOV2),
            Pair("layernorm.{leaf}", "norm.{leaf}"),
        ),
        left_out=LEFT_OUT,
        adapt=join_projections(*PROJECTIONS),
        one_way=WRITTEN_APART,
        original=True,
    ),
    _dinov3("huggingface-dinov3", PLAIN_MLP, gated=False),
    _dinov3("huggingface-dinov3-gated", GATED_MLP, gated=True),
    Convention(
        name="huggingface-beit",
        aliases=("huggingface", "transformers"),
        anchors=(
            (
                "encoder.layer.0.attention.attention.query.weight",
                "embeddings.patch_embeddings.projection.weight",
                "encoder.layer.0.lambda_1",
            ),
        ),
        pairs=(
            *TOKENS,
            *pairs_of("encoder.layer.{i}.", "blocks.{i}.", BEIT),
            Pair(
                "encoder.relative_position_bias.relative_position_bias_table",
                "rel_pos_bias.relative_position_bias_table",
            ),
        ),
        left_out={r"^pooler\.layernorm\.": "norm before the classifier", **LEFT_OUT},
        adapt=join_projections(*PROJECTIONS),
        one_way=WRITTEN_APART,
        original=True,
    ),
    Convention(
        name="huggingface-vitdet",
        aliases=("huggingface", "transformers"),
        anchors=(("encoder.layer.0.attention.qkv.weight", "embeddings.projection.weight"),),
        pairs=(
            Pair("embeddings.position_embeddings", "pos_embed"),
            Pair("embeddings.projection.{leaf}", "patch_embed.proj.{leaf}"),
            *pairs_of("encoder.layer.{i}.", "blocks.{i}.", VITDET),
        ),
        original=True,
    ),
    Convention(
        name="huggingface-rf-detr",
        aliases=("huggingface", "transformers"),
        anchors=(
            (
                "encoder.layer.0.attention.q_proj.weight",
                "embeddings.patch_embeddings.projection.weight",
                "encoder.layer.0.layer_scale1.lambda1",
            ),
        ),
        pairs=(
            *TOKENS,
            *pairs_of("encoder.layer.{i}.", "blocks.{i}.", RF_DETR),
            Pair("layernorm.{leaf}", "norm.{leaf}"),
        ),
        left_out=LEFT_OUT,
        adapt=join_projections(*(f"attention.{letter}_proj" for letter in "qkv")),
        one_way=WRITTEN_APART,
        original=True,
    ),
    Convention(
        name="huggingface-lw-detr",
        aliases=("huggingface", "transformers"),
        anchors=(
            ("encoder.layer.0.attention.q_proj.weight", "embeddings.projection.weight", "encoder.layer.0.gamma_1"),
        ),
        pairs=(
            Pair("embeddings.position_embeddings", "pos_embed"),
            Pair("embeddings.projection.{leaf}", "patch_embed.proj.{leaf}"),
            *pairs_of("encoder.layer.{i}.", "blocks.{i}.", LW_DETR),
        ),
        adapt=join_projections(*(f"attention.{letter}_proj" for letter in "qkv")),
        one_way=WRITTEN_APART,
        original=True,
    ),
)
