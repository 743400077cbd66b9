"""torchvision's Swin Transformers, version 1 and 2. Ours are the authors' names.

Read off `torchvision.models.swin_transformer` and `microsoft/Swin-Transformer`. Stages and what merges patches between
them are counted through.
"""

from __future__ import annotations

from collections.abc import Mapping

from detrex_backbones.checkpoint.names.conventions._convention import Convention, Pair
from detrex_backbones.checkpoint.names.conventions._parts import pairs_of
from detrex_backbones.checkpoint.names.conventions._resnet import RGB
from detrex_backbones.checkpoint.names.conventions.pretrained import KEPT_NORMS
from detrex_backbones.checkpoint.read import LazyTensor

BLOCK = {
    "norm1.": "norm1.",
    "attn.proj.": "attn.proj.",
    "norm2.": "norm2.",
    "mlp.0.": "mlp.fc1.",
    "mlp.3.": "mlp.fc2.",
}
V1 = {**BLOCK, "attn.qkv.": "attn.qkv.", "attn.relative_position_bias_table": "attn.relative_position_bias_table"}
V2 = {
    **BLOCK,
    "attn.qkv.weight": "attn.qkv.weight",
    "attn.qkv.bias": "attn.q_bias",
    "attn.qkv.bias_v": "attn.v_bias",
    "attn.logit_scale": "attn.logit_scale",
    "attn.cpb_mlp.0.": "attn.cpb_mlp.0.",
    "attn.cpb_mlp.2.weight": "attn.cpb_mlp.2.weight",
}
LEFT_OUT = {
    r"\.relative_(position_index|coords_table)$": "computed by the model",
    r"^norm\.": "norm before the classifier",
    r"^head\.": "head",
}
KEPT = {**KEPT_NORMS, r"(^|\.)relative_position_index$": "computed by the model"}
FIRST = ("features.1.0.attn.qkv.weight", "features.0.0.weight", "features.0.2.weight")


def _pairs(block: dict[str, str]) -> tuple[Pair, ...]:
    return (
        Pair("features.0.0.{leaf}", "patch_embed.proj.{leaf}"),
        Pair("features.0.2.{leaf}", "patch_embed.norm.{leaf}"),
        *(
            pair
            for stage in range(4)
            for pair in (
                *pairs_of(f"features.{2 * stage + 1}.{{i}}.", f"layers.{stage}.blocks.{{i}}.", block),
                *pairs_of(
                    f"features.{2 * stage + 2}.",
                    f"layers.{stage}.downsample.",
                    {"norm.": "norm.", "reduction.weight": "reduction.weight"},
                ),
            )
        ),
        Pair("norm.{leaf}", "norm.{leaf}"),
    )


def _without_key_bias(tensors: Mapping[str, LazyTensor]) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """The bias of query and of value apart; a key's is never used, and stays behind."""
    adapted, done = dict(tensors), {}
    for name, tensor in tensors.items():
        if name.endswith("attn.qkv.bias") and tensor.dim() == 1 and len(tensor) % 3 == 0:
            third = len(tensor) // 3
            adapted[name], adapted[f"{name}_v"] = tensor[:third], tensor[2 * third :]
            done[name], done[f"{name}_v"] = "its first third, the query's", f"cut out of {name}"
    return adapted, done


SINGLE_WINDOW = (
    "a map that is a single window isn't shifted by torchvision and TimmBackbone, but is by SwinTransformer and with "
    "always_partition=True, as in detectors: the last map of small images differs by up to 20 %"
)

CONVENTIONS = (
    Convention(
        name="torchvision-swin",
        aliases=("torchvision",),
        anchors=((*FIRST, "features.1.0.attn.relative_position_bias_table"),),
        pairs=_pairs(V1),
        left_out=LEFT_OUT,
        kept=KEPT,
        suggests=RGB,
        lookalikes=SINGLE_WINDOW,
        original=True,
    ),
    Convention(
        name="torchvision-swinv2",
        aliases=("torchvision",),
        anchors=((*FIRST, "features.1.0.attn.cpb_mlp.0.weight"),),
        pairs=_pairs(V2),
        left_out=LEFT_OUT,
        kept=KEPT,
        suggests=RGB,
        lookalikes=SINGLE_WINDOW,
        adapt=_without_key_bias,
        one_way="the bias of each attention's key was left out on reading",
        original=True,
    ),
)
